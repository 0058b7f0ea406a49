// Times in the words and the zone of whoever reads them.

const DAY = 24 * 60 * 60_000;

/** @returns {string} the time of day, for a message */
export function timeOf(time) {
  return new Date(time).toLocaleTimeString([], { hour: 'numeric', minute: '2-digit' });
}

/** @returns {string} the time of today, or else the day, for a list */
export function shortTimeOf(time) {
  const date = new Date(time);
  return date.toDateString() === new Date().toDateString()
    ? timeOf(time)
    : date.toLocaleDateString([], { day: 'numeric', month: 'short' });
}

/** @returns {string} the day, above its messages */
export function dayOf(time) {
  const date = new Date(time);
  const named = { [new Date().toDateString()]: 'Today', [new Date(Date.now() - DAY).toDateString()]: 'Yesterday' };
  return named[date.toDateString()]
    ?? date.toLocaleDateString([], { weekday: 'long', day: 'numeric', month: 'long' });
}

// Shows asyncapi.json: what clients say over the socket, and what they are told.

const DIRECTIONS = [
  { id: "events-said", action: "receive", title: "Socket: what clients say" },
  { id: "events-told", action: "send", title: "Socket: what clients are told" },
];

/** List the events of one direction with the messages that their operations name. */
function eventsIn(socket, action) {
  const message = ({ $ref }) => socket.channels.socket.messages[nameOf($ref)];
  return Object.values(socket.operations).filter((operation) => operation.action === action).map((operation) => ({
    id: `event-${nameOf(operation.messages[0].$ref)}`,
    event: message(operation.messages[0]),
    answer: operation.reply && message(operation.reply.messages[0]),
  }));
}

function shapeOf(schemas, title, schema) {
  return part([title, schema.$ref ? typeOf(schema) : "nothing"], schema.$ref && fieldsOf(schemas[nameOf(schema.$ref)]));
}

function eventOf(schemas, { id, event, answer }) {
  return h("article", { id, "aria-labelledby": `${id}-title` },
    h("h3", { id: `${id}-title` }, h("a", { href: `#${id}` }, h("code", {}, event.name))),
    prose(event.summary),
    shapeOf(schemas, "Carries: ", event.payload),
    answer && part("Acknowledgement", h("p", {}, joined(answer.payload.anyOf.map(typeOf), " or "))),
  );
}

/** Show both directions; `sections` go into the text and `navs` into the contents. */
function eventSectionsOf(socket, schemas) {
  const directions = DIRECTIONS.map((one) => ({ ...one, found: eventsIn(socket, one.action) }));
  return {
    sections: directions.map(({ id, title, found }, index) => h("section", { id },
      h("h2", {}, title),
      index === 0 && prose(socket.info.description),
      found.map((one) => eventOf(schemas, one)),
    )),
    navs: directions.map(({ id, title, found }) =>
      navOf(title, id, found.map((one) => [one.id, h("code", {}, one.event.name)]))),
  };
}


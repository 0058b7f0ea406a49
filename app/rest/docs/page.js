// Shows openapi.json to people, and asyncapi.json with events.js. All text goes into the page as text: nothing of the
// documents is taken for HTML.

const METHODS = ["get", "post", "put", "patch", "delete"];
const NO_NUL = "^[^\\x00]*$";
const WIDE = matchMedia("(min-width: 64rem)");

const byId = (id) => document.getElementById(id);
const nameOf = (ref) => ref.split("/").at(-1);

/** Make an element; what is null, undefined or false among its children is left out. */
function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat(Infinity).filter((child) => (child ?? false) !== false));
  return element;
}

/** Turn `code` between backticks into elements, and leave the rest as it is. */
function words(text) {
  return text.split("`").map((part, index) => (index % 2 ? h("code", {}, part) : part));
}

function prose(text) {
  return (text ?? "").split("\n\n").filter(Boolean).map((paragraph) => h("p", {}, words(paragraph)));
}

function joined(lists, separator) {
  return lists.flatMap((list, index) => (index ? [separator, list] : [list]));
}

/** Say in a few words, with links, what kind of value a schema lets in. */
function typeOf(schema) {
  if (schema.$ref) return h("a", { href: `#schema-${nameOf(schema.$ref)}` }, nameOf(schema.$ref));
  if (schema.anyOf) return joined(schema.anyOf.map(typeOf), " or ");
  if ("const" in schema) return h("code", {}, JSON.stringify(schema.const));
  if (schema.enum) return joined(schema.enum.map((value) => h("code", {}, JSON.stringify(value))), " or ");
  if (schema.type === "array") return ["list of ", typeOf(schema.items ?? {})];
  if (schema.format) return schema.format;
  return schema.type ?? "anything";
}

function range(least, most, unit) {
  if (least === undefined && most === undefined) return [];
  const number = (value) => value.toLocaleString("en");
  if (least === undefined) return [`up to ${number(most)} ${unit}`];
  if (most === undefined) return [`from ${number(least)} ${unit}`];
  return [`${number(least)} to ${number(most)} ${unit}`];
}

/** List the bounds of a schema, or of the one that is not null among its alternatives. */
function boundsOf(schema) {
  const bounded = schema.anyOf?.find((inner) => inner.type && inner.type !== "null") ?? schema;
  const found = [
    ...range(bounded.minLength, bounded.maxLength, "characters"),
    ...range(bounded.minItems, bounded.maxItems, "entries"),
    ...range(bounded.minimum, bounded.maximum, "up").map((text) => text.replace(/^(\S+ to \S+) up$/, "$1")),
  ];
  if (bounded.pattern === NO_NUL) found.push("no NUL");
  if (schema.default !== undefined && schema.default !== null && !Array.isArray(schema.default)) {
    found.push(`default ${schema.default}`);
  }
  return found;
}

function describedBy(schema) {
  return schema.description ?? schema.anyOf?.find((inner) => inner.description)?.description;
}

function field(name, schema, isRequired, description) {
  return h("li", { class: "field" },
    h("div", { class: "signature" },
      h("code", { class: "name" }, name), " ",
      h("span", { class: "type" }, typeOf(schema)), " ",
      isRequired && h("span", { class: "required" }, "required"),
    ),
    h("div", { class: "about" }, words(description ?? ""), " ",
      h("span", { class: "bounds" }, boundsOf(schema).join(", ")),
    ),
  );
}

function fieldsOf(schema) {
  const entries = Object.entries(schema.properties ?? {});
  if (!entries.length) return schema.anyOf ? h("p", {}, "One of ", joined(schema.anyOf.map(typeOf), ", "), ".") : null;
  const required = schema.required ?? [];
  return h("ul", { class: "fields" },
    entries.map(([name, inner]) => field(name, inner, required.includes(name), describedBy(inner))),
  );
}

function answerOf(status, answer) {
  const [type, content] = Object.entries(answer.content ?? {})[0] ?? [];
  const shape = type === "application/json" ? typeOf(content.schema) : (type ?? "nothing");
  return h("li", { class: "answer" },
    h("span", { class: `status s${status[0]}` }, status), h("span", {}, answer.description, " · ", shape),
  );
}

function part(title, ...content) {
  return h("section", { class: "part" }, h("h4", {}, title), content);
}

function operationOf(api, method, path, operation) {
  const guard = Object.keys(operation.security[0] ?? {})[0];
  const scheme = guard && api.components.securitySchemes[guard];
  const body = operation.requestBody?.content["application/json"].schema;
  const answers = Object.entries(operation.responses);
  const errors = answers.filter(([, answer]) => answer.$ref);
  const id = operation.operationId;
  return h("article", { id, "aria-labelledby": `${id}-title` },
    h("h3", { id: `${id}-title` }, h("a", { href: `#${id}` }, words(operation.summary))),
    h("p", { class: "route" },
      h("span", { class: `method ${method}` }, method.toUpperCase()), " ",
      // The line may break before each part of a path, and nowhere else.
      h("code", {}, path.split(/(?=\/)/).flatMap((piece, index) => (index ? [h("wbr", {}), piece] : [piece]))),
      scheme && h("a", { class: "guard", href: `#guard-${guard}` }, scheme.name ?? "User token"),
    ),
    prose(operation.description),
    operation.parameters && part("Parameters", h("ul", { class: "fields" },
      operation.parameters.map((one) => field(
        one.name, one.schema, one.required, `${one.description}${one.in === "query" ? "" : ` In the ${one.in}.`}`,
      )),
    )),
    body && part(["Body: ", typeOf(body)],
      body.$ref && fieldsOf(api.components.schemas[nameOf(body.$ref)]),
    ),
    part("Answers",
      h("ul", { class: "answers" }, answers.filter(([, answer]) => !answer.$ref).map((one) => answerOf(...one))),
      errors.length > 0 && h("p", { class: "errors" }, "Errors: ",
        joined(errors.map(([status]) => h("a", { href: `#error-${status}` }, status)), " "),
      ),
    ),
  );
}

function operationsOf(api) {
  return Object.entries(api.paths).flatMap(([path, methods]) =>
    METHODS.filter((method) => methods[method]).map((method) => ({ method, path, operation: methods[method] })),
  );
}

function guardsOf(api) {
  return h("section", { id: "guards" }, h("h2", {}, "Who may call"),
    Object.entries(api.components.securitySchemes).map(([name, scheme]) =>
      h("article", { id: `guard-${name}` },
        h("h3", {}, scheme.name ?? "User token"),
        h("p", { class: "route" },
          h("code", {}, scheme.name ? `${scheme.name}: …` : `Authorization: Bearer … (${scheme.bearerFormat})`),
        ),
        prose(scheme.description),
      ),
    ),
  );
}

function errorsOf(api, operations) {
  const found = new Map();
  for (const { operation } of operations) {
    for (const [status, answer] of Object.entries(operation.responses)) {
      if (answer.$ref) found.set(status, api.components.responses[nameOf(answer.$ref)]);
    }
  }
  return h("section", { id: "errors" }, h("h2", {}, "Errors"),
    h("p", {}, "Each is an ", h("a", { href: "#schema-Error" }, "Error"), "."),
    h("ul", { class: "answers" }, [...found].sort().map(([status, answer]) =>
      h("li", { class: "answer", id: `error-${status}` },
        h("span", { class: `status s${status[0]}` }, status),
        h("span", {}, words(answer.description), Object.entries(answer.headers ?? {}).map(([name, header]) => [
          " ", h("code", {}, name), ": ", header.description,
        ])),
      ),
    )),
  );
}

function schemasOf(schemas) {
  return h("section", { id: "schemas" }, h("h2", {}, "Schemas"),
    Object.entries(schemas).map(([name, schema]) =>
      h("article", { id: `schema-${name}`, class: "schema", "aria-labelledby": `schema-${name}-title` },
        h("h3", { id: `schema-${name}-title` }, h("a", { href: `#schema-${name}` }, name)),
        prose(schema.description),
        fieldsOf(schema),
      ),
    ),
  );
}

function navOf(title, id, entries) {
  return h("section", {},
    h("h2", {}, h("a", { href: `#${id}` }, title)),
    h("ul", {}, entries.map(([target, ...label]) => h("li", {}, h("a", { href: `#${target}` }, label)))),
  );
}

function show(api, socket) {
  const schemas = { ...socket.components.schemas, ...api.components.schemas };
  const events = eventSectionsOf(socket, schemas);
  const operations = operationsOf(api);
  const tags = api.tags.map((tag) => ({
    ...tag, mine: operations.filter(({ operation }) => operation.tags.includes(tag.name)),
  }));
  byId("version").textContent = api.info.version;
  byId("main").replaceChildren(
    h("section", { class: "intro" }, prose(api.info.description)),
    ...tags.map((tag) => h("section", { id: `tag-${tag.name}` },
      h("h2", {}, tag.name), prose(tag.description),
      tag.mine.map(({ method, path, operation }) => operationOf(api, method, path, operation)),
    )),
    ...events.sections, guardsOf(api), errorsOf(api, operations), schemasOf(schemas),
  );
  byId("nav").replaceChildren(
    ...tags.map((tag) => navOf(tag.name, `tag-${tag.name}`, tag.mine.map(({ method, operation }) =>
      [operation.operationId, h("span", { class: `method ${method}` }, method.toUpperCase()), h("span", {}, words(operation.summary))],
    ))),
    ...events.navs,
    navOf("Who may call", "guards", []),
    navOf("Errors", "errors", []),
    navOf("Schemas", "schemas", Object.keys(schemas).map((name) => [`schema-${name}`, name])),
  );
}

/** Show only what the words of the filter are found in, here and in the contents. */
function filter() {
  const wanted = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const article of document.querySelectorAll("main article")) {
    const text = article.textContent.toLowerCase();
    article.hidden = !wanted.every((word) => text.includes(word));
    if (!article.hidden) count += 1;
    const link = byId("nav").querySelector(`li > a[href="#${article.id}"]`);
    if (link) link.parentElement.hidden = article.hidden;
  }
  for (const section of document.querySelectorAll("main > section, nav > section")) {
    const entries = [...section.querySelectorAll("article, li:has(> a)")].filter((entry) => !entry.closest(".part"));
    section.hidden = wanted.length > 0 && entries.every((entry) => entry.hidden);
  }
  byId("found").textContent = wanted.length ? `${count} found` : "";
}

/** Bring back what a link leads to, where the filter hides it. */
function reveal() {
  const target = byId(decodeURIComponent(location.hash.slice(1)));
  if (target?.hidden) {
    byId("filter").value = "";
    filter();
  }
  target?.scrollIntoView();
}

/** Mark in the contents what is being read. */
function follow() {
  const links = new Map([...byId("nav").querySelectorAll("li > a")].map((link) => [link.hash.slice(1), link]));
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      const link = links.get(target.id);
      link?.setAttribute("aria-current", "location");
      if (WIDE.matches) link?.scrollIntoView({ block: "nearest" });
    }
  }, { rootMargin: "-15% 0px -80% 0px" });
  for (const article of document.querySelectorAll("main article")) observer.observe(article);
}

/** Beside the text there is room for the contents; above it they open when asked for. */
function fold() {
  byId("contents").open = WIDE.matches;
}

async function load(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`the service answered ${answer.status}`);
  return answer.json();
}

async function start() {
  fold();
  WIDE.addEventListener("change", fold);
  byId("filter").addEventListener("input", filter);
  byId("nav").addEventListener("click", (event) => {
    if (event.target.closest("a") && !WIDE.matches) fold();
  });
  try {
    show(...await Promise.all(["openapi.json", "asyncapi.json"].map(load)));
    follow();
    reveal();
    addEventListener("hashchange", reveal);
  } catch (error) {
    byId("main").replaceChildren(h("p", { role: "alert" }, `The document could not be shown: ${error.message}`));
  }
  byId("main").removeAttribute("aria-busy");
}

start();

// Builds elements. Text only ever goes in as text: names of jobs and users come from anybody.

export function element(tag, { className = "", text = null, title = "", data = {} } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== null) made.textContent = String(text);
  if (title) made.title = title;
  Object.assign(made.dataset, data);
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Columns: {head, className, cell: (row) => text or Node}. */
export function table(columns, rows, { rowClass = () => "" } = {}) {
  const head = element("tr", {}, ...columns.map((column) => element("th", { text: column.head, className: column.className })));
  const body = rows.map((row) => {
    const cells = columns.map((column) => {
      const content = column.cell(row);
      const options = { className: column.className, data: { label: column.head } };
      return content instanceof Node ? element("td", options, content) : element("td", { ...options, text: content });
    });
    return element("tr", { className: rowClass(row) }, ...cells);
  });
  return element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
}

/** A colour of the style sheet, as it is in the present theme. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Replaces what is inside, keeping how far a person has scrolled. */
export function fill(container, ...children) {
  const { scrollTop, scrollLeft } = container;
  container.replaceChildren(...children);
  container.scrollTop = scrollTop;
  container.scrollLeft = scrollLeft;
}

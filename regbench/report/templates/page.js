import { ITable } from "itables";

// --- tables: sorted by a click on a column, filtered by words

const layout = { topStart: "search", topEnd: "info", bottomStart: null, bottomEnd: null };
const language = {
  search: "Filter",
  searchPlaceholder: "words of a row",
  info: "_TOTAL_ rows",
  infoEmpty: "no rows",
  infoFiltered: "of _MAX_",
  zeroRecords: "No row has these words.",
};
// a title would show a second time, and not under the focus
for (const cell of document.querySelectorAll("td[title]")) {
  cell.dataset.about = cell.title;
  cell.removeAttribute("title");
}
for (const table of document.querySelectorAll("table.data")) {
  new ITable(table, { paging: false, order: [], autoWidth: false, language, layout });
}

// --- what is known of an accuracy: under the pointer, the focus or a finger; Escape closes it

const about = document.getElementById("about");
let told = null;

function tell(cell) {
  if (cell === told) return;
  hush();
  told = cell;
  for (const line of cell.dataset.about.split("\n")) {
    const colon = line.indexOf(": ");
    const name = about.appendChild(document.createElement("dt"));
    const value = about.appendChild(document.createElement("dd"));
    name.textContent = line.slice(0, colon);
    value.textContent = line.slice(colon + 2);
  }
  about.hidden = false;
  cell.setAttribute("aria-describedby", about.id);
  place();
}

function place() {
  if (!told) return;
  const cell = told.getBoundingClientRect();
  if (cell.bottom < 0 || cell.top > innerHeight) return hush();
  about.style.maxHeight = "";
  const [above, under] = [cell.top, innerHeight - cell.bottom];
  const below = under >= about.offsetHeight || under >= above;
  about.style.maxHeight = `${(below ? under : above) - 8}px`;
  const right = document.documentElement.clientWidth - about.offsetWidth - 8;
  about.style.left = `${Math.max(8, Math.min(cell.left, right))}px`;
  about.style.top = `${below ? cell.bottom : above - about.offsetHeight}px`;
}

function hush() {
  told?.removeAttribute("aria-describedby");
  told = null;
  about.hidden = true;
  about.replaceChildren();
}

const cellOf = (target) => target?.closest?.("td[data-about]");
const kept = (target) => about.contains(target) || cellOf(target) === told;

for (const event of ["pointerover", "focusin"]) {
  document.addEventListener(event, ({ target }) => cellOf(target) && tell(cellOf(target)));
}
for (const event of ["pointerout", "focusout"]) {
  document.addEventListener(event, ({ relatedTarget, pointerType }) => {
    const focused = event === "pointerout" && kept(document.activeElement);
    if (told && pointerType !== "touch" && !focused && !kept(relatedTarget)) hush();
  });
}
document.addEventListener("keydown", ({ key }) => key === "Escape" && hush());
document.addEventListener("scroll", place, { capture: true, passive: true });

// --- figures: enlarged by a click

const dialog = document.getElementById("enlarged");
for (const button of document.querySelectorAll("figure button")) {
  const small = button.querySelector("img");
  button.addEventListener("click", () => {
    const large = dialog.querySelector("img");
    large.src = small.src;
    large.alt = small.alt;
    dialog.showModal();
  });
}
dialog.addEventListener("click", ({ target }) => target !== dialog.querySelector("img") && dialog.close());

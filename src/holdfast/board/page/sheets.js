// @ts-check
/** How is something asked? In a sheet over the board: a `<dialog>`, which knows about focus and Escape. */

import { byId } from "./view.js";

/** Open a sheet; `done` is called if it was submitted. @param {string} id  @param {() => void} done */
export function sheet(id, done) {
  const dialog = byId(id);
  dialog.querySelector("form").onsubmit = () => done();
  const cancel = byId(`${id}-cancel`);
  if (cancel) cancel.onclick = () => dialog.close();
  if (!dialog.open) dialog.showModal();
}

/** Ask for a name. @param {string} heading  @param {string} value  @param {(name: string) => void} done
 * @param {() => void} [remove]  what is named can be deleted here too */
export function askName(heading, value, done, remove) {
  const input = byId("name-input");
  byId("name-heading").textContent = heading;
  input.value = value;
  byId("name-delete").hidden = !remove;
  byId("name-delete").onclick = () => (byId("name").close(), remove?.());
  sheet("name", () => input.value.trim() && input.value.trim() !== value && done(input.value.trim()));
  input.select();
}

/**
 * Show a card, and ask what is to be different; what nobody touched is left to the others.
 *
 * @param {import("./model.js").Task} task  @param {string} where  @param {import("./model.js").Person[]} people
 * @param {(patch: Partial<import("./model.js").Task>) => void} save  @param {() => void} remove
 */
export function showCard(task, where, people, save, remove) {
  const [title, description, assignee] = ["card-title", "card-description", "card-assignee"].map(byId);
  byId("card-heading").textContent = where;
  byId("card-id").textContent = task.id;
  title.value = task.title;
  description.value = task.description ?? "";
  assignee.replaceChildren(new Option("Nobody", ""), ...people.map((person) => new Option(person.name, person.id)));
  assignee.value = task.assigneeId ?? "";
  byId("card-delete").onclick = () => (byId("card").close(), remove());
  sheet("card", () => {
    const wanted = {
      title: title.value.trim() || task.title,
      description: description.value || null,
      assigneeId: assignee.value || null,
    };
    const patch = Object.entries(wanted).filter(([name, value]) => value !== task[/** @type {keyof typeof wanted} */ (name)]);
    if (patch.length) save(Object.fromEntries(patch));
  });
}

// @ts-check
/** Who is at this page? Signs in and out, and keeps the token fresh; the cookie is the server's. */

import { ask } from "./api.js";
import { sheet } from "./sheets.js";
import { byId, toast } from "./view.js";

/** @returns {Promise<{name: string, guest: boolean, expires: number | null} | null>} */
const whoAmI = () => ask("GET", "/me").then(({ data }) => data, () => null);

/** Ask for a name, because somebody wants to sign in, or (`why`) has to. @param {string} [why] */
export async function signIn(why) {
  if (byId("sign-in").open) return;
  let me = await whoAmI();
  if (why && !me) {
    await signOut(); // a cookie that is refused is no use; without one, is there a place for guests?
    me = await whoAmI();
  }
  byId("sign-in-why").textContent = why ?? (me?.guest === false ? `You are ${me.name}.` : "Your name is enough here; a new one makes a new person.");
  byId("sign-out").hidden = me?.guest !== false;
  byId("sign-out").onclick = () => signOut().then(() => location.reload());
  byId("sign-in-guest").hidden = me?.guest !== true;
  byId("sign-in-guest").onclick = () => (why ? location.reload() : byId("sign-in").close());
  sheet("sign-in", async () => {
    try {
      await ask("POST", "/login", { name: byId("sign-in-name").value });
      location.reload(); // another person, from the start
    } catch (error) {
      toast(/** @type {Error} */ (error).message);
      if (why) signIn(why);
    }
  });
}

const signOut = () => ask("POST", "/logout").catch(() => {});

/** @type {ReturnType<typeof setTimeout> | undefined} */
let renewal;

/** Exchange the token for a fresh one when most of its time is over; guests have none that ends.
 * @param {(token: string) => void} use */
export async function keepSignedIn(use) {
  clearTimeout(renewal);
  const me = await whoAmI();
  if (!me?.expires) return;
  const wait = Math.max(1000, (me.expires - Date.now() / 1000) * 800);
  renewal = setTimeout(async () => {
    const renewed = await ask("POST", "/renew").then(({ data }) => data, () => null);
    if (renewed) use(renewed.token);
  }, Math.min(wait, 2 ** 31 - 1)); // browsers count in 32 bits
}

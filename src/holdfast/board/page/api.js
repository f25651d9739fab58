// @ts-check
/** How is the server asked? Every refusal becomes an `Error` with the server's words and its status. */

export class Refused extends Error {
  /** @param {string} message  @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/**
 * Ask, and return what was answered. A write carries a key, so that a retry of it is harmless.
 *
 * @param {string} method  @param {string} path  @param {unknown} [body]  @returns {Promise<any>}
 */
export async function ask(method, path, body) {
  /** @type {Record<string, string>} */
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (method !== "GET") headers["idempotency-key"] = crypto.randomUUID?.() ?? String(Math.random());
  const send = () => fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  /** @type {Response} */
  let response;
  try {
    response = await send().catch(send); // once more, under the same key: the first may have been cut on its way
  } catch {
    throw new Refused("The server cannot be reached. Nothing was changed.", 0);
  }
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => ({ error: response.statusText }));
  if (!response.ok) throw new Refused(answer.error, response.status);
  return answer;
}

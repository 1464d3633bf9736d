// Questions to the service. The session is a cookie that scripts cannot read; what they add is the
// page's token, which another site does not know.

const token = document.querySelector('meta[name="csrf"]').content;
const SLOW = 2500;

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export async function ask(path, body, { method, signal, slow } = {}) {
  const headers = { Accept: "application/json" };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  method ??= body === undefined ? "GET" : "POST";
  if (method !== "GET") headers["X-CSRF-Token"] = token;
  const timer = slow && setTimeout(slow, SLOW);
  try {
    const sent = body === undefined ? undefined : JSON.stringify(body);
    const answer = await fetch(path, { method, headers, body: sent, signal });
    if (!answer.ok) throw await problem(answer);
    return await answer.json();
  } catch (error) {
    if (error instanceof TypeError) {
      throw new Problem(0, "The service does not answer. Check that it runs, and try again.");
    }
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function problem(answer) {
  let told = {};
  try {
    told = await answer.json();
  } catch {
    // an answer that is no JSON says nothing that we could show
  }
  const fields = (told.errors ?? []).map((one) => `${one.field}: ${one.message}`);
  const detail = [told.detail || `The service answered ${answer.status}.`, ...fields].join(" ");
  return new Problem(answer.status, detail);
}

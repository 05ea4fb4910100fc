// Sends the form's fields, and shows what comes back as text.
const form = document.getElementById("wish"), said = document.getElementById("said"), lines = document.getElementById("lines");

function shown(line) {
  const item = document.createElement("li"), more = document.createElement("span");
  const parts = ["perplexity " + Math.exp(-line.score).toFixed(0), "tones opposite at " + line.opposed];
  if (line.rhymes !== null) parts.push(line.rhymes ? "rhymes" : "does not rhyme");
  if (line.copied) parts.push("a line of the training poems");
  item.textContent = line.text;
  more.textContent = parts.join(", ");
  item.append(more);
  return item;
}

async function write() {
  const fields = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value !== "") fields.set(name, value);
  form.querySelector("button").disabled = true;
  said.textContent = "";
  try {
    const answer = await fetch("/write?" + fields), found = await answer.json();
    lines.replaceChildren(...(found.lines || []).map(shown));
    said.textContent = found.error || "";
  } catch (error) {
    said.textContent = "The program that serves this page has ended.";
  }
  form.querySelector("button").disabled = false;
}

form.addEventListener("submit", (event) => { event.preventDefault(); write(); });
const given = new URLSearchParams(location.search);
for (const [name, value] of given) {
  const field = form.elements.namedItem(name);
  if (field instanceof HTMLInputElement) {
    if (field.type === "checkbox") field.checked = true; else field.value = value;
  }
}
if (given.has("upper")) write();

// Job files, dropped, chosen or written: the server says what is wrong with each, before it is submitted.
import { call, root } from "./call.js";
import { attempt } from "./orders.js";

export function listen() {
    document.addEventListener("change", (event) => {
        if (event.target.id === "files") {
            checkFiles(event.target.files);
            event.target.value = ""; // the same file may be chosen again, mended
        }
    });
    document.addEventListener("submit", (event) => {
        if (!event.target.matches(".job-editor")) return;
        event.preventDefault();
        checkText(event.target.elements.json.value);
    });
    const zone = document.querySelector(".drop");
    if (!zone) return;
    // Dropped beside the zone, a file would be opened in the place of this page.
    document.addEventListener("dragover", (event) => {
        event.preventDefault();
        zone.classList.add("over");
    });
    document.addEventListener("dragleave", (event) => event.relatedTarget || zone.classList.remove("over"));
    document.addEventListener("drop", (event) => {
        event.preventDefault();
        zone.classList.remove("over");
        checkFiles(event.dataTransfer.files);
    });
}

async function checkText(text) {
    const item = await check("The job", "", text);
    document.getElementById("checked").replaceChildren(item); // one alone, however often it was asked for
}

async function checkFiles(files) {
    document.getElementById("checked").replaceChildren();
    for (const file of [...files]) {
        document.getElementById("checked").append(await check(file.name, file.name.replace(/\.[^.]*$/, ""), file));
    }
}

async function check(name, title, body) {
    let found;
    try {
        const response = await fetch(`${root}/farm/check?title=${encodeURIComponent(title)}`, { method: "POST", body });
        found = await response.json();
        if (!response.ok) found = { problems: [found.message], warnings: [] };
    } catch {
        found = { problems: ["It could not be checked: the file or the server cannot be reached."], warnings: [] };
    }
    return show(name, found);
}

function show(name, { title, modules, text, problems, warnings }) {
    const item = element("li", problems.length ? "card failed" : "card");
    item.append(element("h3", "", problems.length ? `${name} is not a job` : `${name}: ${title || "(no title)"}`));
    for (const problem of problems) item.append(element("p", "message", problem));
    for (const warning of warnings) item.append(element("p", "message warn", warning));
    if (problems.length) return item;
    item.append(element("p", "muted", `Tasks: ${modules.join(", ")}`));
    const button = element("button", "", "Submit");
    button.type = "button";
    button.setAttribute("aria-label", `Submit ${name}`);
    button.addEventListener("click", () =>
        attempt(button, async () => {
            const { job_id: id } = await call("POST", `${root}/queue`, text);
            const link = element("a", "title", "It is in the queue");
            link.href = `${root}/farm/jobs/${encodeURIComponent(id)}`;
            button.replaceWith(link);
            link.focus();
            return `${title || name} is in the queue.`;
        }),
    );
    item.append(button);
    return item;
}

function element(tag, className, text = "") {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = text;
    return made;
}

// The operator's orders: buttons and forms that name a call of the API.
import { call, say, sayLater } from "./call.js";
import { refresh } from "./refresh.js";

export function listen() {
    takeAnswers(document.getElementById("confirm"));
    document.addEventListener("click", (event) => {
        const button = event.target.closest("button");
        if (button?.dataset.method) order(button);
        else if (button?.dataset.copy) copy(button);
    });
    document.addEventListener("submit", (event) => {
        const form = event.target;
        if (form.dataset.method) {
            event.preventDefault();
            setPriority(form);
        } else if (form.matches(".document-editor")) {
            event.preventDefault();
            store(form);
        }
    });
}

async function order(button) {
    const { method, path, body, ask, done, to } = button.dataset;
    if (ask && !(await confirmed(ask))) return;
    await attempt(button, async () => {
        const answer = await call(method, path, body);
        if (!to) return done;
        return leave(done, to.replace(encodeURIComponent("{job_id}"), encodeURIComponent(answer?.job_id ?? "")));
    });
}

/** Go to another view. Until it is there, the button stays as it is: pressed twice, it would run a job twice. */
function leave(sentence, to) {
    sayLater(sentence);
    location.assign(to);
    return new Promise((resolve) => addEventListener("pageshow", () => resolve(""), { once: true })); // of `back`
}

async function setPriority(form) {
    await attempt(form.querySelector("button"), async () => {
        const field = form.elements.priority;
        const sent = field.value;
        await call(form.dataset.method, form.dataset.path, { priority: field.valueAsNumber });
        field.defaultValue = sent;
        if (field.value === sent) form.reset(); // a field that was written into shows nothing that others set
        return form.dataset.done;
    });
}

async function store(form) {
    await attempt(form.querySelector("button"), async () => {
        const { json, module, name } = form.elements;
        const path = form.dataset.path ?? [form.dataset.root, ...[module, name].map((part) => quoted(part.value))].join("/");
        await call("POST", path, json.value); // as it was written: JavaScript would round large numbers
        if (!form.dataset.to) return "It is stored.";
        return leave("It is stored.", [form.dataset.to, ...[module, name].map((part) => quoted(part.value))].join("/"));
    });
}

function quoted(part) {
    // `..` would be a step up: quote_part() in app/formats.py
    return /^\.+$/.test(part) ? part.replaceAll(".", "%2E") : encodeURIComponent(part);
}

/** Do something for a button, which cannot be pressed meanwhile; say how it went. */
export async function attempt(button, action) {
    if (button.getAttribute("aria-disabled") === "true") return;
    button.setAttribute("aria-disabled", "true"); // not `disabled`: it would lose the focus
    try {
        const sentence = await action();
        if (sentence) say(sentence);
    } catch (error) {
        say(error.message, true);
    }
    button.removeAttribute("aria-disabled");
    refresh();
}

let answer = () => {}; // to the question that is asked

function takeAnswers(dialog) {
    dialog?.addEventListener("click", (event) => {
        const button = event.target.closest("[data-answer]");
        // The second click of two is meant for the button that asks, whose place an answer may have taken.
        if (button && event.detail < 2) dialog.close(button.dataset.answer);
    });
    dialog?.addEventListener("close", () => {
        if (!dialog.open) answer(dialog.returnValue === "yes"); // else it was the question before: this event comes late
    });
}

/** Ask a question; resolves to whether the answer is yes. */
function confirmed(question) {
    const dialog = document.getElementById("confirm");
    answer(false);
    document.getElementById("question").textContent = question;
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => {
        answer = resolve;
    });
}

async function copy(button) {
    const source = document.getElementById(button.dataset.copy);
    const text = source.value ?? source.textContent;
    try {
        await navigator.clipboard.writeText(text);
        say("Copied.");
    } catch {
        // Only HTTPS and this machine may write to the clipboard.
        if (source.select) source.select();
        else getSelection().selectAllChildren(source);
        say("It is selected: copy it with Ctrl+C.");
    }
}

// Calls of the server's API, and the line that says how they went.

export const root = document.documentElement.dataset.root;

/** Send a call; returns what it answers. Throws an Error whose message is for a person. */
export async function call(method, path, body) {
    let response;
    try {
        response = await fetch(path, {
            method,
            headers: body === undefined ? {} : { "Content-Type": "application/json" },
            body: body === undefined ? undefined : typeof body === "string" ? body : JSON.stringify(body),
        });
    } catch {
        throw new Error("The server cannot be reached; nothing was changed as far as we know. Try again.");
    }
    const text = await response.text();
    if (response.ok) return text && response.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : null;
    if (response.status === 401) throw new Error("You are logged out. Load this page again to log in.");
    let message = `The server answered ${response.status}.`;
    try {
        message = JSON.parse(text).message ?? message;
    } catch {
        // not from our server: a proxy's page
    }
    throw new Error(message);
}

/** Show a sentence, which a screen reader says, too. It stays until the next one, or until it is clicked away. */
export function say(sentence, isProblem = false) {
    const status = document.getElementById("status");
    const line = document.createElement("p");
    line.className = isProblem ? "bad" : "good";
    line.textContent = sentence;
    const close = document.createElement("button");
    close.type = "button";
    close.className = "quiet";
    close.textContent = "Close";
    close.addEventListener("click", () => status.replaceChildren());
    line.append(" ", close);
    status.replaceChildren(line);
}

/** The sentence that the page before this one left. */
export function sayLater(sentence) {
    withStorage((storage) => storage.setItem("say", sentence));
}

export function sayWhatIsLeft() {
    withStorage((storage) => {
        const sentence = storage.getItem("say");
        storage.removeItem("say");
        if (sentence) say(sentence);
    });
}

function withStorage(action) {
    try {
        action(sessionStorage);
    } catch {
        // This browser keeps nothing for any site, or has no more room: nothing is said then.
    }
}

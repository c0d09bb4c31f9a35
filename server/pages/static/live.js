// The stream of events, and whether it stands.
//
// A browser has six connections to a server, for all of its tabs: a tab that nobody sees closes its stream.
import { root } from "./call.js";

const RETRY = 2000; // milliseconds

let readEnded = () => {};

/** Tell whether the view could be read: a stream seems to stand for long when the server or its database is gone. */
export function noteRead(isDone) {
    readEnded(isDone);
}

/** Give the events to `view`: its methods `job`, `worker`, `queue` take what the server tells, `reset` reads all again. */
export function follow(view) {
    const connection = document.getElementById("connection");
    let source = null;
    let timer = 0;
    let awaySince = null;

    function show(state, words) {
        if (connection.dataset.state === state) return; // said once
        connection.dataset.state = state;
        connection.textContent = words;
    }

    function isBack() {
        const wasAway = awaySince !== null;
        awaySince = null;
        show("live", "Live");
        if (wasAway) view.reset();
    }

    function isAway() {
        awaySince ??= new Date();
        const time = awaySince.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
        show("away", `Server away since ${time}; what you see is old`);
        if (source.readyState === EventSource.CONNECTING) return; // it tries again by itself
        view.reset(); // perhaps the server is there, and nobody is logged in any more
        if (source.readyState === EventSource.CLOSED) timer ||= setTimeout(open, RETRY);
    }

    readEnded = (isDone) => {
        if (!isDone && source) isAway();
        else if (awaySince !== null && source?.readyState === EventSource.OPEN) isBack();
    };

    function open() {
        close();
        if (awaySince === null) show("connecting", "Connecting …");
        source = new EventSource(`${root}/events`);
        source.addEventListener("open", isBack);
        source.addEventListener("error", isAway);
        for (const kind of ["job", "worker", "queue", "reset"]) {
            source.addEventListener(kind, (event) => view[kind](JSON.parse(event.data)));
        }
    }

    function close() {
        clearTimeout(timer);
        timer = 0;
        source?.close();
        source = null;
    }

    document.addEventListener("visibilitychange", () => {
        if (document.hidden) close();
        else if (source === null) {
            open();
            view.reset();
        }
    });
    addEventListener("pagehide", close); // or Firefox tells of an error while it leaves the page
    addEventListener("pageshow", (event) => event.persisted && open());
    open();
}

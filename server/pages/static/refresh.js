// Keeps the view up to date: figures of running jobs at once, everything else by reading the page again.
import { sayWhatIsLeft } from "./call.js";
import { noteRead } from "./live.js";
import { morph } from "./morph.js";
import { Progress } from "./progress.js";
import { compareClocks, tell } from "./times.js";

const LEAST = 1000; // milliseconds from one reading to the next
const PATIENCE = 25_000; // milliseconds for one reading: the server gives up its database after 20 s
const SHARE = 5; // reading may take a fifth of the time: a view of a thousand workers is read more rarely

let asked = () => {};

/** Read the view again soon. */
export function refresh() {
    asked();
}

/** Begin; returns what `live.js` gives events to. */
export function begin() {
    const progress = new Progress();
    const main = () => document.getElementById("main");
    let timer = 0;
    let next = 0;
    let isReading = false;
    let isStale = false;

    async function read() {
        timer = 0;
        const start = performance.now();
        isReading = true;
        isStale = false;
        let isDone = false;
        try {
            const signal = AbortSignal.timeout(PATIENCE);
            const response = await fetch(location.href, { headers: { Accept: "text/html" }, signal });
            if (response.redirected) location.assign(response.url); // to the login
            else if (response.status < 500) show(await response.text());
            isDone = response.status < 500;
        } catch {
            // `noteRead` says that the server is away
        }
        isReading = false;
        next = performance.now() + Math.max(LEAST, isDone ? SHARE * (performance.now() - start) : 0);
        noteRead(isDone);
        if (isStale) asked();
    }

    function show(text) {
        const page = new DOMParser().parseFromString(text, "text/html");
        const fresh = page.getElementById("main");
        if (!fresh) return;
        compareClocks(page);
        tell(fresh);
        morph(main(), fresh);
        document.title = page.title;
        progress.look();
    }

    asked = () => {
        isStale = true;
        if (!isReading && !timer) timer = setTimeout(read, Math.max(0, next - performance.now()));
    };

    const watches = (kind, id) => {
        const watched = main().dataset.watch.split(" ");
        return watched.includes(kind) || watched.includes(`${kind}:${id}`);
    };
    setInterval(() => document.hidden || asked(), 1000 * main().dataset.every);
    progress.look();
    sayWhatIsLeft();
    return {
        job: (job) => watches("job", job.job_id) && asked(),
        worker: (worker) => !progress.take(worker) && watches("worker", worker.job_id) && asked(),
        queue: () => watches("queue") && asked(),
        reset: () => asked(),
    };
}

// The bars and figures of running jobs, moved by the workers' heartbeats, at most once a frame, each only if it differs.
import { duration, size } from "./times.js";

export class Progress {
    #places = new Map(); // elements by their worker
    #waiting = new Map(); // heartbeats for the next frame, by their worker

    /** Look which workers the view shows. */
    look() {
        this.#places.clear();
        for (const element of document.querySelectorAll("[data-worker]")) {
            this.#places.set(element.dataset.worker, element);
        }
    }

    /** Take a worker's heartbeat; returns whether that is all there is to do: nothing but figures has changed. */
    take(worker) {
        const place = this.#places.get(worker.worker_id);
        if (!place || place.dataset.kind !== kindOf(worker)) return false;
        if (!this.#waiting.size) requestAnimationFrame(() => this.#show());
        this.#waiting.set(worker.worker_id, worker);
        return true;
    }

    #show() {
        for (const [name, worker] of this.#waiting) {
            const place = this.#places.get(name);
            if (place?.classList.contains("live")) showFacts(place, worker);
        }
        this.#waiting.clear();
    }
}

function showFacts(place, worker) {
    const facts = factsOf(worker);
    const bar = place.querySelector("progress");
    if (worker.progress === undefined) bar.removeAttribute("value");
    else if (bar.value !== worker.progress || !bar.hasAttribute("value")) bar.value = worker.progress;
    for (const element of place.querySelectorAll("[data-fact]")) {
        const text = facts[element.dataset.fact];
        if (element.textContent !== text) element.textContent = text;
        element.parentElement.hidden = !text;
    }
}

// `_kind()` in views.py
function kindOf(worker) {
    const { disabled = false, paused = false } = worker.attributes ?? {};
    const info = worker.info ?? {};
    const told = [worker.status, worker.job_id ?? "", disabled, paused, info.paused === true];
    return JSON.stringify([...told, String(info.trouble ?? "")]);
}

// `facts()` in rendering.py
function factsOf(worker) {
    const info = worker.info ?? {};
    const number = (name, digits, unit) =>
        typeof info[name] === "number" ? `${info[name].toFixed(digits)} ${unit}` : "";
    return {
        percent: worker.progress === undefined ? "" : `${worker.progress.toFixed(1)} %`,
        task: worker.task ?? "",
        phase: String(info.phase ?? ""),
        fps: number("fps", 1, "fps"),
        speed: number("speed", 2, "x"),
        left: duration(info.eta_seconds),
        memory: size(info.memory),
    };
}

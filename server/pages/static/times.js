// Times, durations and sizes for people. The server writes times in UTC; here they become the reader's own.

const EVERY = 5000; // milliseconds
const LEAST_DIFFERENCE = 60_000; // milliseconds between two clocks: a page may have been under way for less
const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
const FULL = { dateStyle: "medium", timeStyle: "medium" };

let ahead = 0; // milliseconds by which this machine's clock is ahead of the server's

export function begin() {
    compareClocks(document);
    tell(document);
    setInterval(() => document.hidden || tell(document), EVERY);
}

/** Take the server's time from a page that has just come. */
export function compareClocks(page) {
    const difference = Date.now() - new Date(page.documentElement.dataset.now);
    ahead = Math.abs(difference) > LEAST_DIFFERENCE ? difference : 0;
}

/** Write all times below an element. */
export function tell(element) {
    for (const time of element.querySelectorAll("time[datetime]")) {
        const instant = new Date(time.dateTime);
        if (Number.isNaN(instant.getTime())) continue;
        const full = instant.toLocaleString([], FULL);
        const text = time.dataset.style === "full" ? full : inWords((Date.now() - ahead - instant) / 1000, time.dataset.style);
        if (time.textContent !== text) time.textContent = text;
        if (time.title !== full) time.title = full;
    }
}

function inWords(seconds, style) {
    if (seconds < 5) return style === "for" ? "an instant" : "just now"; // or in the future: clocks differ
    const [length, unit] = UNITS.find(([length]) => seconds >= length);
    return `${Math.trunc(seconds / length)} ${unit}${style === "for" ? "" : " ago"}`;
}

export function duration(seconds) {
    if (typeof seconds !== "number") return "";
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds);
    const parts = [[Math.floor(whole / 86400), "d"], [Math.floor(whole / 3600) % 24, "h"]];
    parts.push([Math.floor(whole / 60) % 60, "min"], [whole % 60, "s"]);
    const first = parts.findIndex(([value]) => value);
    return parts.slice(first, first + 2).filter(([value]) => value).map((part) => part.join(" ")).join(" ");
}

export function size(bytes) {
    if (typeof bytes !== "number") return "";
    const units = ["bytes", "kB", "MB", "GB", "TB"];
    while (bytes >= 999.5 && units.length > 1) {
        bytes /= 1000;
        units.shift();
    }
    return `${Number(bytes.toPrecision(3))} ${units[0]}`;
}

// Makes one tree of elements like another, and touches only what differs: focus, scroll position, what was typed and what
// was opened stay. Elements with an id are the same where they have the same id, wherever they stand.

const KEPT = "data-keep"; // a part with what a person is at: never touched
const LISTS = new Set(["MAIN", "OL", "TBODY", "UL"]); // white space in them says nothing
const OPEN = new Set(["DETAILS", "DIALOG"]);

/** Make `old` like `fresh`, which is used up. */
export function morph(old, fresh) {
    const focused = document.activeElement;
    morphElement(old, fresh);
    // Moving an element takes its focus away.
    if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}

function morphElement(old, fresh) {
    if (old.hasAttribute(KEPT) && fresh.hasAttribute(KEPT)) return;
    for (const { name, value } of fresh.attributes) {
        if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
        const isOpened = name === "open" && OPEN.has(old.tagName);
        const isBusy = name === "aria-disabled"; // a button whose call is under way
        if (!fresh.hasAttribute(name) && !isOpened && !isBusy) old.removeAttribute(name);
    }
    if (old.tagName !== "TEXTAREA") morphChildren(old, fresh);
}

function morphChildren(old, fresh) {
    if (LISTS.has(old.tagName)) [old, fresh].forEach(dropSpace); // or it would be in the way: rows would be moved
    const byId = new Map();
    for (const child of old.children) if (child.id) byId.set(child.id, child);
    const wanted = new Set([...fresh.children].map((child) => child.id).filter(Boolean));
    let place = old.firstChild;
    for (const child of [...fresh.childNodes]) {
        // What has gone is taken out first: the rest need not move.
        while (place && place.id && !wanted.has(place.id)) place = remove(place);
        const same = child.id ? byId.get(child.id) : isLike(place, child) ? place : null;
        if (!same) {
            old.insertBefore(document.adoptNode(child), place);
        } else {
            if (same === place) place = place.nextSibling;
            else old.insertBefore(same, place);
            if (same.nodeType === Node.ELEMENT_NODE) morphElement(same, child);
            else if (same.data !== child.data) same.data = child.data;
        }
    }
    while (place) place = remove(place);
}

function dropSpace(list) {
    for (const child of [...list.childNodes]) if (child.nodeType === Node.TEXT_NODE && !child.data.trim()) child.remove();
}

function remove(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
}

function isLike(node, other) {
    return node !== null && node.nodeType === other.nodeType && node.nodeName === other.nodeName && !node.id;
}

"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const every = Number(document.body.dataset.refresh) * 1000;
  let latest = 0;
  let seen = Date.now();

  // Times are UTC in the page; their tooltips say them in the reader's zone.
  const localise = () => {
    for (const time of document.querySelectorAll("time"))
      time.title = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
  };

  const rough = (seconds) => {
    if (seconds < 120) return `${seconds}s`;
    if (seconds < 7200) return `${Math.floor(seconds / 60)}m`;
    return seconds < 172800 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86400)}d`;
  };
  const age = () => {
    for (const span of document.querySelectorAll("[data-ago]"))
      span.textContent = `${rough(Math.max(0, Math.round((Date.now() - span.dataset.ago) / 1000)))} ago`;
  };

  const inReach = (of) => (of && (of.id ? $(of.id) : [...document.querySelectorAll("a")].find((a) => a.href === of.href)));

  // Takes over what is live from another copy of the page; what has the focus keeps it.
  const take = (page) => {
    const focused = document.activeElement;
    const held = focused && focused.closest("[data-live]") ? { id: focused.id, href: focused.href } : null;
    for (const part of document.querySelectorAll("[data-live]")) {
      const fresh = page.getElementById(part.id);
      if (!fresh) return false;
      if (fresh.innerHTML !== part.innerHTML) part.replaceChildren(...fresh.childNodes);
      part.className = fresh.className;
    }
    for (const tile of document.querySelectorAll(".tile")) {
      const fresh = page.getElementById(tile.id);
      tile.className = fresh.className;
      tile.hidden = fresh.hidden;
    }
    document.title = page.title;
    document.querySelector("link[rel=icon]").href = page.querySelector("link[rel=icon]").href;
    if (held && !focused.isConnected) (inReach(held) || $("count") || $("main")).focus({ preventScroll: true });
    localise();
    age();
    return true;
  };

  // The newest request wins, whatever order the answers come in.
  const load = async (url) => {
    const turn = ++latest;
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(20000) });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (turn !== latest) return false;
      if (!page.body.dataset.refresh) throw new Error(`HTTP ${answer.status}`);
      // Another kind of page by now, such as of a target that is gone.
      if (!take(page)) location.reload();
      seen = Date.now();
      $("lost").hidden = true;
      return page;
    } catch (error) {
      if (turn !== latest) return false;
      $("lost").textContent =
        `forewarn does not answer (${error.message}). What stands here is ${rough(Math.round((Date.now() - seen) / 1000))} old; the page tries again by itself.`;
      $("lost").hidden = false;
      return false;
    }
  };

  const form = $("filter");
  const search = form && form.elements.namedItem("q");
  const asked = () => {
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value.trim() !== ""));
    return query.size ? `./?${query}` : "./";
  };
  let typing;
  const filter = (wait) => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      history.replaceState(null, "", asked());
      load(location.href);
    }, wait);
  };
  // Makes the form say what the address asks for.
  const fill = () => {
    const query = new URLSearchParams(location.search);
    search.value = query.get("q") || "";
    for (const box of form.querySelectorAll("[type=checkbox]")) box.checked = query.getAll("show").includes(box.value);
    let sort = form.elements.namedItem("sort");
    if (!sort) {
      sort = Object.assign(document.createElement("input"), { type: "hidden", name: "sort" });
      form.append(sort);
    }
    sort.value = query.get("sort") || "";
  };

  if (form) {
    form.classList.add("by-itself");
    search.addEventListener("input", () => filter(120));
    form.addEventListener("change", (event) => event.target === search || filter(0));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      filter(0);
    });
    addEventListener("popstate", () => {
      fill();
      load(location.href);
    });
    document.addEventListener("click", async (event) => {
      const link = event.target.closest("a[data-swap]");
      if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      history.pushState(null, "", link.href);
      fill();
      const { id } = link;
      if ((await load(location.href)) && ["first", "previous", "next", "last", "clear"].includes(id)) $("targets").scrollIntoView();
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) return;
      event.preventDefault();
      search.focus();
      search.select();
    });
  }

  localise();
  setInterval(age, 5000);
  setInterval(() => {
    // Who selects text wants to copy it.
    if (!document.hidden && getSelection().isCollapsed) load(location.href);
  }, every);
  document.addEventListener("visibilitychange", () => document.hidden || load(location.href));
})();

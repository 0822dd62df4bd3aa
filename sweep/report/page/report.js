"use strict";
(() => {
  const root = document.documentElement;
  let store;
  const fill = (part) => {
    for (const image of part.querySelectorAll("img[data-img]")) {
      store ??= JSON.parse(document.getElementById("images").textContent);
      image.onload = () => image.classList.toggle("tiny", image.naturalWidth <= 192);
      image.src = store[image.dataset.img];
      image.removeAttribute("data-img");
    }
  };
  document.addEventListener("toggle", (event) => { if (event.target.open) fill(event.target); }, true);
  for (const part of document.querySelectorAll("details.cell[open]")) fill(part);

  const show = (hash) => {
    const part = hash.length > 1 && document.getElementById(hash.slice(1));
    if (!part || part.tagName !== "DETAILS") return;
    for (let around = part; around; around = around.parentElement.closest("details")) {
      around.open = true;
      around.hidden = false;
    }
    part.scrollIntoView();
    part.firstElementChild.focus({ preventScroll: true });
  };
  addEventListener("hashchange", () => show(location.hash));
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link) show(link.hash);
    const heading = event.target.closest("th[aria-sort]");
    if (heading) sort(heading);
    const plot = event.target.closest(".plot");
    if (plot) enlarge(plot);
    if (event.target === large || event.target.closest(".close")) large.close();
    if (event.target.id === "open-all") {
      const parts = [...document.querySelectorAll("details.cell")];
      const open = !parts.every((part) => part.open);
      for (const part of parts) part.open = open;
    }
  });

  const large = document.getElementById("large");
  const enlarge = (plot) => {
    large.lastElementChild.replaceChildren(plot.firstElementChild.cloneNode(true));
    large.showModal();
  };

  const filter = () => {
    const off = new Set([...document.querySelectorAll(".filter:not(:checked)")].map((box) => box.value));
    for (const part of document.querySelectorAll("[data-status]")) part.hidden = off.has(part.dataset.status);
  };

  const sort = (heading) => {
    const numeric = heading.classList.contains("n");
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const order = heading.ariaSort === first ? other : first;
    for (const each of heading.parentNode.children) each.ariaSort = "none";
    heading.ariaSort = order;
    const body = heading.closest("table").tBodies[0];
    const place = heading.cellIndex;
    const sign = order === "ascending" ? 1 : -1;
    const keyed = [...body.rows].map((row) => {
      const field = row.cells[place];
      const value = field.dataset.v ?? field.textContent.trim();
      return [value === "" ? null : field.dataset.v === undefined ? value : Number(value), row];
    });
    const compare = (a, b) => typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b || 0;
    keyed.sort(([a], [b]) => (a === null || b === null) ? (a === null) - (b === null) : sign * compare(a, b));
    body.append(...keyed.map(([, row]) => row));
  };

  document.addEventListener("input", (event) => {
    if (event.target.matches(".filter")) filter();
    if (!event.target.matches("input.amp")) return;
    root.style.setProperty("--amp", event.target.value);
    for (const slider of document.querySelectorAll("input.amp")) {
      slider.value = event.target.value;
      slider.nextElementSibling.textContent = `${event.target.value}×`;
    }
  });
  root.classList.add("js");
  filter();  // boxes that the browser remembers
  show(location.hash);
})();

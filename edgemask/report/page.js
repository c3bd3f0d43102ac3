"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const dialog = document.querySelector("dialog");

  // One tab per device; the links serve where there is no script.
  const tabs = (list) => {
    const links = all("a", list);
    const panel = (link) => document.querySelector(link.hash);
    const choose = (chosen) => {
      for (const link of links) {
        link.setAttribute("aria-selected", link === chosen);
        link.tabIndex = link === chosen ? 0 : -1;
        panel(link).hidden = link !== chosen;
      }
    };
    list.setAttribute("role", "tablist");
    for (const link of links) {
      link.setAttribute("role", "tab");
      link.setAttribute("aria-controls", panel(link).id);
      panel(link).setAttribute("role", "tabpanel");
      link.addEventListener("click", (event) => {
        event.preventDefault();
        choose(link);
      });
    }
    list.addEventListener("keydown", (event) => {
      const place = links.indexOf(document.activeElement);
      const next = { ArrowLeft: place - 1, ArrowRight: place + 1, Home: 0, End: -1, " ": place }[event.key];
      if (next === undefined || place < 0) return;
      event.preventDefault();
      const link = links.at(next % links.length);
      link.focus();
      choose(link);
    });
    choose(links.find((link) => link.hash === location.hash) ?? links.find((link) => "first" in link.dataset) ?? links[0]);
  };

  // Rows without a value stay last, whichever way the others go.
  const sortable = (table) => {
    const heads = all("thead th", table);
    const body = table.tBodies[0];
    const sort = (column) => {
      const head = heads[column];
      const isText = head.dataset.sort === "text";
      const way = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      const sign = way === "ascending" ? 1 : -1;
      const value = (row) => (isText ? row.cells[column].textContent : row.cells[column].dataset.value);
      const compare = (one, other) => {
        const [a, b] = [value(one), value(other)];
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (isText ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
      };
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", way);
      body.append(...[...body.rows].sort(compare));
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(column));
      head.append(button);
    });
  };

  const gallery = (root) => {
    const entries = all(".entry", root);
    const form = root.querySelector("form");
    const [chooser, left, reset] = ["select", "output", "[type=reset]"].map((selector) => form.querySelector(selector));
    const chips = all(".chip", form);
    const filter = () => {
      const kinds = new Set(chips.filter((chip) => chip.ariaPressed === "true").map((chip) => chip.dataset.kind));
      const wanted = chooser.value;
      const fits = (mark) => (!kinds.size || kinds.has(mark.dataset.kind)) && (!wanted || mark.dataset.class === wanted);
      for (const entry of entries) {
        const marks = all("[data-kind]", entry);
        for (const mark of marks) mark.classList.toggle("off", !fits(mark));
        // A class alone asks for the images that show it; with a kind, for those where one of it differs so.
        const has = !wanted || entry.dataset.classes.split(" ").includes(wanted);
        entry.hidden = kinds.size ? !marks.some(fits) : !has;
      }
      const count = entries.filter((entry) => !entry.hidden).length;
      left.textContent = `${count} of ${entries.length} ${entries.length > 1 ? "images" : "image"}`;
      reset.hidden = !kinds.size && !wanted;
    };
    for (const chip of chips) {
      chip.addEventListener("click", () => {
        chip.ariaPressed = chip.ariaPressed !== "true";
        filter();
      });
    }
    chooser.addEventListener("change", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    reset.addEventListener("click", (event) => {
      event.preventDefault();
      chooser.value = "";
      for (const chip of chips) chip.ariaPressed = "false";
      filter();
      chooser.focus();
    });
    for (const entry of entries) {
      const open = () => enlarge(entries.filter((other) => !other.hidden), entry);
      entry.querySelector(".pair").addEventListener("click", open);
      entry.querySelector(".open").addEventListener("click", open);
    }
  };

  // The image that is shown large, and those before and after it.
  let row = [];
  let current = null;
  const show = (entry) => {
    current = entry;
    const place = row.indexOf(entry);
    const [name, reason] = [entry.querySelector("h4"), entry.querySelector("p")];
    dialog.querySelector("#large-name").textContent = name.textContent;
    dialog.querySelector("#large-reason").textContent = reason.textContent;
    dialog.querySelector("#large-place").textContent = `${place + 1} of ${row.length}`;
    dialog.querySelector(".stage").replaceChildren(entry.querySelector(".pair").cloneNode(true));
    const found = entry.querySelector(".differences");
    dialog.querySelector(".found").replaceChildren(...(found ? [found.cloneNode(true)] : []));
    dialog.querySelector("[data-step='-1']").disabled = place === 0;
    dialog.querySelector("[data-step='1']").disabled = place === row.length - 1;
  };
  const enlarge = (entries, entry) => {
    row = entries;
    show(entry);
    dialog.showModal();
  };
  const step = (by) => {
    const next = row[row.indexOf(current) + by];
    if (next) show(next);
  };
  const view = (chosen) => {
    dialog.dataset.view = chosen;
    for (const button of all("[data-view]", dialog)) button.ariaPressed = button.dataset.view === chosen;
  };
  const large = () => {
    view("both");
    for (const button of all("[data-step]", dialog)) {
      const by = button.dataset.step;
      button.addEventListener("click", () => (by === "close" ? dialog.close() : step(Number(by))));
    }
    for (const button of all("[data-view]", dialog)) button.addEventListener("click", () => view(button.dataset.view));
    dialog.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) {
        event.preventDefault();
        step(by);
      }
    });
    dialog.addEventListener("close", () => {
      const entry = current;
      dialog.querySelector(".stage").replaceChildren();
      entry.querySelector(".open").focus();
    });
    // A difference in the list shows where it is.
    const point = (event, on) => {
      const item = event.target.closest("li");
      if (!item) return;
      const place = [...item.parentNode.children].indexOf(item);
      for (const marks of all(".marks", dialog)) marks.children[place].classList.toggle("hot", on);
    };
    dialog.querySelector(".found").addEventListener("pointerover", (event) => point(event, true));
    dialog.querySelector(".found").addEventListener("pointerout", (event) => point(event, false));
  };

  const boxes = all(".show-marks");
  for (const box of boxes) {
    box.addEventListener("change", () => {
      for (const other of boxes) other.checked = box.checked;
      document.documentElement.classList.toggle("unmarked", !box.checked);
    });
  }
  document.documentElement.classList.add("js");
  all(".devices").forEach(tabs);
  all(".sortable").forEach(sortable);
  all(".gallery").forEach(gallery);
  large();
})();

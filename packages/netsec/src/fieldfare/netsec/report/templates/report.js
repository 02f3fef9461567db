"use strict";
(() => {
  const PAGE = 100;
  const section = document.getElementById("flows");
  const columns = JSON.parse(document.getElementById("flow-data").textContent);
  const names = JSON.parse(section.dataset.columns);
  const body = section.querySelector("tbody");
  const heads = [...section.querySelectorAll("thead th")];
  const filter = section.querySelector("input");
  const status = section.querySelector("output");
  const [back, next] = section.querySelectorAll(".pages button");
  const numeric = new Set(["confidence", "src_port", "dst_port", "protocol", "start", "end",
    "packets_fwd", "packets_bwd", "bytes_fwd", "bytes_bwd"]);
  const searched = ["label", "src_ip", "dst_ip"].map((name) => columns[names.indexOf(name)]);
  let order = [...columns[0].keys()];
  let sorted = -1; // as they ended
  let falling = true;
  let page = 0;

  const shown = (name, value) => {
    if (value === null) return "";
    if (name === "start") {
      const date = new Date(value * 1000);
      return isNaN(date) ? String(value) : date.toISOString().replace("T", " ").replace("Z", "");
    }
    return name === "confidence" ? value.toFixed(3) : String(value);
  };

  const draw = () => {
    const pages = Math.max(1, Math.ceil(order.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    body.replaceChildren(...order.slice(page * PAGE, (page + 1) * PAGE).map((row) => {
      const line = document.createElement("tr");
      names.forEach((name, i) => {
        const cell = document.createElement("td");
        cell.textContent = shown(name, columns[i][row]);
        if (numeric.has(name)) cell.className = "n";
        line.append(cell);
      });
      return line;
    }));
    status.textContent = `${order.length} flows, page ${page + 1} of ${pages}`;
    back.disabled = page === 0;
    next.disabled = page === pages - 1;
    heads.forEach((head, i) => {
      const state = i !== sorted ? "none" : falling ? "descending" : "ascending";
      head.setAttribute("aria-sort", state);
    });
  };

  const sort = () => {
    if (sorted < 0) return;
    const values = columns[sorted];
    const sign = falling ? -1 : 1;
    const number = numeric.has(names[sorted]);
    order.sort((a, b) => {
      const x = values[a], y = values[b];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      const less = number ? x - y : x < y ? -1 : x > y ? 1 : 0;
      return sign * less || a - b;
    });
  };

  const choose = () => {
    const wanted = filter.value.trim().toLowerCase();
    order = [...columns[0].keys()].filter((row) =>
      !wanted || searched.some((values) => values[row].toLowerCase().includes(wanted)));
    page = 0;
    sort();
    draw();
  };

  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    falling = i === sorted ? !falling : numeric.has(names[i]);
    sorted = i;
    page = 0;
    sort();
    draw();
  }));
  filter.addEventListener("input", choose);
  back.addEventListener("click", () => { page -= 1; draw(); });
  next.addEventListener("click", () => { page += 1; draw(); });
  choose();
  section.dataset.state = "ready";
})();

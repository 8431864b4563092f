// Comfort only: the page says everything without this. Sorts tables by column and zooms the flame chart.
document.querySelectorAll("table.sortable").forEach(table => {
  const body = table.tBodies[0];
  const key = cell => cell.dataset.order ?? cell.textContent.trim();
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th[aria-sort]").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const compare = (a, b) => {
        const x = key(a.cells[column]), y = key(b.cells[column]);
        const order = x !== "" && y !== "" && !isNaN(x) && !isNaN(y) ? x - y : x.localeCompare(y);
        return down ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
});
document.querySelectorAll("svg.flame").forEach(chart => {
  const parts = [...chart.querySelectorAll(":scope > svg")].map(node => ({
    node, x: parseFloat(node.getAttribute("x")), width: parseFloat(node.getAttribute("width")),
  }));
  const zoom = (from, width) => parts.forEach(part => {
    part.node.setAttribute("x", (100 * (part.x - from)) / width + "%");
    part.node.setAttribute("width", (100 * part.width) / width + "%");
    part.node.classList.toggle("tiny", (part.width / width) * chart.clientWidth < 40);
  });
  parts.forEach(part => part.node.addEventListener("click", () => part.width > 0 && zoom(part.x, part.width)));
});

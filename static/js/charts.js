/* Charts from tables: <figure data-chart="line|bar|stack"> with a <figcaption> and a <table> whose first column has the
 * labels and whose other columns are numeric: <td data-value="12.5">$12.50</td>; what the cell says is what the chart
 * says. A <th data-colour="bad"> draws its column in that status colour. The library is loaded when a page has a chart.
 * The table stays, folded away below, and is what screen readers get. Without scripts it is all there is.
 */
(() => {
  "use strict";
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--k-${name}`).trim();
  const read = (table, kind) => {
    const rows = [...table.tBodies[0].rows];
    const columns = [...table.tHead.rows[0].cells].map((head, place) => ({ head, cells: rows.map((row) => row.cells[place]) }));
    const numeric = columns.slice(1).filter(({ cells }) => cells.some((cell) => cell?.dataset.value));
    const datasets = numeric.map(({ head, cells }, place) => {
      const colour = token(head.dataset.colour ?? `chart-${(place % 6) + 1}`);
      const look = { borderColor: colour, backgroundColor: colour, borderWidth: kind === "line" ? 2 : 0, pointRadius: 1.5 };
      const data = cells.map((cell) => (cell?.dataset.value ? Number(cell.dataset.value) : null));
      return { label: head.textContent.trim(), data, texts: cells.map((cell) => cell?.textContent.trim()), ...look };
    });
    return { labels: columns[0].cells.map((cell) => cell.textContent.trim()), datasets };
  };

  const draw = (figure) => {
    const [table, kind] = [figure.querySelector("table"), figure.dataset.chart];
    if (!figure.querySelector("canvas")) {
      const folded = '<details class="k-more"><summary>As a table</summary></details>';
      table.insertAdjacentHTML("beforebegin", `<div class="k-chart"><canvas role="img"></canvas></div>${folded}`);
      table.previousElementSibling.append(table);
    }
    const canvas = figure.querySelector("canvas");
    canvas.setAttribute("aria-label", `${figure.querySelector("figcaption")?.textContent.trim() ?? "Chart"}. The table after it has the figures.`);
    Chart.getChart(canvas)?.destroy();
    const axis = { stacked: kind === "stack", grid: { color: token("line") }, ticks: { color: token("text-soft") } };
    const data = read(table, kind);
    const says = ({ dataset, dataIndex }) => `${dataset.label}: ${dataset.texts[dataIndex]}`;
    const legend = { display: data.datasets.length > 1, position: "bottom", labels: { color: token("text"), boxWidth: 12 } };
    const options = {
      animation: false,
      maintainAspectRatio: false,
      interaction: { mode: "index", intersect: false },
      scales: { x: { ...axis, grid: { display: false } }, y: { ...axis, beginAtZero: true } },
      plugins: { legend, tooltip: { callbacks: { label: says } } },
    };
    new Chart(canvas, { type: kind === "line" ? "line" : "bar", data, options });
  };

  const figures = () => [...document.querySelectorAll("figure[data-chart]")].filter((one) => one.querySelector("tbody tr"));
  const drawAll = async (wanted) => {
    if (!wanted.length) return;
    await import(document.body.dataset.charts); // once; it sets window.Chart
    Object.values(Chart.instances).filter((chart) => !chart.canvas?.isConnected).forEach((chart) => chart.destroy());
    wanted.forEach(draw);
  };
  const drawNew = () => drawAll(figures().filter((figure) => !figure.querySelector("canvas")));
  drawNew();
  document.addEventListener("htmx:afterSettle", drawNew);
  // A refreshed part brings the plain table: the drawn figure takes over its rows (see page.js).
  document.addEventListener("kontor:figure", ({ target, detail }) => {
    for (const name of ["table", "figcaption"]) target.querySelector(name)?.replaceWith(detail.querySelector(name).cloneNode(true));
    drawAll([target]);
  });
  new MutationObserver(() => drawAll(figures())).observe(document.documentElement, { attributeFilter: ["data-bs-theme"] });
})();

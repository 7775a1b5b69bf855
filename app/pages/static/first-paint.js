// Runs before the first paint, so that a page does not flash in the other theme. It is no module: those run later.
"use strict";
try {
  document.documentElement.dataset.theme = localStorage.getItem("image-gateway.theme") || "auto";
} catch {
  document.documentElement.dataset.theme = "auto"; // storage is switched off
}

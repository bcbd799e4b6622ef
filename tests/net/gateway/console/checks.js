// What tests ask of a page in the browser.
({
  // How many texts there are, and those with too little contrast, as [text, contrast]. Colours are asked of a canvas,
  // which knows all ways to write one.
  contrasts(least) {
    const pen = Object.assign(document.createElement("canvas"), {width: 1, height: 1}).getContext("2d", {willReadFrequently: true});
    const rgba = (color) => {
      pen.clearRect(0, 0, 1, 1);
      pen.fillStyle = color;
      pen.fillRect(0, 0, 1, 1);
      return pen.getImageData(0, 0, 1, 1).data;
    };
    const light = ([red, green, blue]) => {
      const [r, g, b] = [red, green, blue].map((one) => one / 255).map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
      for (; element; element = element.parentElement) {
        const color = rgba(getComputedStyle(element).backgroundColor);
        if (color[3] === 255) return color;
      }
      return [255, 255, 255, 255];
    };
    const found = [];
    let checked = 0;
    for (const element of document.querySelectorAll("body *")) {
      const own = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
      if (!own || !element.checkVisibility() || element.closest("noscript, dialog, svg, option, datalist")) continue;
      const [front, back] = [light(rgba(getComputedStyle(element).color)), light(behind(element))];
      const contrast = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
      checked += 1;
      if (contrast < least) found.push([own, contrast]);
    }
    return [checked, found];
  },

  // Whatever is used but has no name, ids that are not unique, and tables without a caption or headings.
  nameless() {
    const named = (element) => element.labels?.length || element.getAttribute("aria-label") || element.getAttribute("aria-labelledby") || element.textContent.trim();
    const used = [...document.querySelectorAll("a, button, input, select, dialog, nav, section")].filter((element) => !named(element));
    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
    const twice = ids.filter((id, place) => ids.indexOf(id) !== place);
    const bare = [...document.querySelectorAll("table")].filter((table) => !table.caption?.textContent || !table.querySelector("th[scope=col]"));
    return [...used.map((element) => element.outerHTML), ...twice, ...bare.map((table) => table.outerHTML)];
  },
})

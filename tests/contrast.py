"""What a test asks a browser about the contrast of a page."""

# The contrast of every text with what is behind it (WCAG 2.2, "relative luminance" and "contrast ratio").
CONTRAST = """() => {
  const light = (colour) => {
    const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour.endsWith(", 0)") && element.parentElement ? behind(element.parentElement) : colour;
  };
  const shown = [...document.body.querySelectorAll("*")].filter((element) => element.getClientRects().length
    && [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
  return shown.map((element) => {
    const style = getComputedStyle(element);
    const [ink, page] = [light(element.closest("svg") ? style.fill : style.color), light(behind(element))];
    return [Math.max(ink, page) / Math.min(ink, page), element.outerHTML.slice(0, 80)];
  });
}"""

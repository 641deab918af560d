// What the host says about the surroundings: theme, colours, mode and edges.

export function applyContext({ theme, styles, displayMode, safeAreaInsets }) {
  const root = document.documentElement;
  if (theme) root.style.colorScheme = theme;
  for (const [name, value] of Object.entries(styles?.variables ?? {})) {
    if (name.startsWith("--") && value) root.style.setProperty(name, value);
  }
  if (displayMode) root.dataset.display = displayMode;
  for (const [side, pixels] of Object.entries(safeAreaInsets ?? {})) {
    root.style.setProperty(`--inset-${side}`, `${pixels}px`);
  }
}

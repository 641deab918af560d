// All that the page knows, in one place. Whoever shows a part of it is told when that changes.

export const state = {
  model: null, // what GET /api/v3/models says of it
  characters: null, // newest first; null until they are known
  chosen: null, // the id of the character that is drawn
  draft: {}, // the parameters that somebody has set; the model decides the others
  predictions: [], // newest first, with what is seen of them while they are drawn
  drawn: new Map(), // the latest pictures by the id of their character
  whose: new Map(), // their characters by the id of the prediction
  online: true,
};

const watchers = [];

export function change(changes) {
  Object.assign(state, changes);
  for (const { names, show } of [...watchers]) {
    if (names.some((name) => name in changes)) show(state);
  }
}

// Shows at once and after each change of one of the names; gives the way to end it.
export function watch(names, show) {
  const watcher = { names, show };
  watchers.push(watcher);
  show(state);
  return () => watchers.splice(watchers.indexOf(watcher), 1);
}

export function character(id) {
  return state.characters?.find((one) => one.id === id) ?? null;
}

// Without a value, the parameter is left to the model.
export function set(name, value) {
  const { [name]: before, ...draft } = state.draft;
  if (value !== undefined && value !== "") draft[name] = value;
  if (before !== draft[name]) change({ draft });
}

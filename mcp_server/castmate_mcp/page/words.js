// Figures as people read them.

export function duration(seconds) {
  if (seconds < 10 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

export function money(usd) {
  return usd > 0 ? `$${usd.toFixed(usd < 0.1 ? 3 : 2)}` : "free";
}

export function capitalised(text) {
  return text[0].toUpperCase() + text.slice(1);
}

export function day(created) {
  return new Date(created).toLocaleDateString("en", { dateStyle: "medium" });
}

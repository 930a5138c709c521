// Runs before the first paint: the theme of the cookie or the system, and the zone for the server.
{
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const wish = root.dataset.theme;
    root.dataset.bsTheme = wish === "light" || wish === "dark" ? wish : system.matches ? "dark" : "light";
  };
  apply();
  system.addEventListener("change", () => {
    apply();
    dispatchEvent(new Event("themechange"));
  });
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && !document.cookie.includes(`tz=${encodeURIComponent(zone)}`)) {
    document.cookie = `tz=${encodeURIComponent(zone)};path=/;max-age=31536000;samesite=lax`;
  }
}

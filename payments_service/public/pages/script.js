/* Optional: without it the page refreshes itself and every form works the same. Written for old phones: no syntax after
   2015. Comments of this kind only, and a semicolon or brace at the end of each statement: the lines are joined. */
(function () {
  var main = document.querySelector("main"), live = document.getElementById("live");
  var begun = Date.now(), timer = 0, asked = 0;
  if (!main || !live) { return; }
  document.documentElement.className = "js";
  document.addEventListener("click", function (event) {
    if (event.target.id === "print") { window.print(); }
  });
  /* What <noscript> does where there is no script, for browsers whose script can do too little. */
  if (!window.fetch || !window.DOMParser) {
    if (main.dataset.refresh) { setTimeout(function () { location.replace(main.dataset.refresh); }, 5000); }
    return;
  }

  /* A second tap on the same form is not sent; what was sent is shown as busy. */
  document.addEventListener("submit", function (event) {
    if (event.target.sent) { event.preventDefault(); return; }
    event.target.sent = true;
    main.setAttribute("aria-busy", "true");
    setTimeout(forget, 20000);
  });
  window.addEventListener("pageshow", function (event) {
    if (event.persisted) { forget(); look(); }
  });
  document.addEventListener("visibilitychange", function () {
    if (!document.hidden) { look(); }
  });

  function forget() {
    var forms = document.forms, i;
    for (i = 0; i < forms.length; i += 1) { forms[i].sent = false; }
    main.removeAttribute("aria-busy");
  }

  /* Often while somebody waits in front of the page, then more rarely, at last not at all. */
  function plan() {
    var waited = (Date.now() - begun) / 1000;
    clearTimeout(timer);
    if (main.dataset.watch && waited < 1800) { timer = setTimeout(look, waited < 150 ? 3000 : 12000); }
  }

  function look() {
    plan();
    if (document.hidden || !main.dataset.version || Date.now() - asked < 10000) { return; }
    asked = Date.now();
    fetch(main.dataset.status, { cache: "no-store" }).then(function (answer) {
      return answer.ok ? answer.json() : null;
    }).then(function (told) {
      var fresh = told && told.version !== main.dataset.version, open;
      if (!fresh) { return; }
      open = told.status === "pending" || told.status === "failed";
      if (!open || main.dataset.watch === "any") { return show(); }
    }).catch(function () {}).then(function () {
      asked = 0;
      plan();
    });
  }

  /* Only what is inside is replaced, so that the line that is read aloud stays the same element. */
  function show() {
    return fetch(main.dataset.page, { cache: "no-store" }).then(function (answer) {
      return answer.ok ? answer.text() : null;
    }).then(function (text) {
      var other = text && new DOMParser().parseFromString(text, "text/html"), next = other && other.querySelector("main");
      var inside = main.contains(document.activeElement), said;
      if (!next) { return; }
      main.innerHTML = next.innerHTML;
      count();
      main.dataset.version = next.dataset.version || "";
      main.dataset.watch = next.dataset.watch || "";
      document.title = other.title;
      main.removeAttribute("aria-busy");
      said = main.querySelector(".state");
      live.textContent = said ? said.textContent.replace(/\s+/g, " ") : document.title;
      if (inside) { main.focus(); }
    });
  }

  /* By the seconds that were left when the page was made: the phone's clock may be another. Once they are over, by what
     the service says. */
  function count() {
    var shown = main.querySelector("[data-left]"), left;
    if (!shown || shown.over) { return; }
    shown.ends = shown.ends || Date.now() + shown.dataset.left * 1000;
    left = Math.max(0, Math.ceil((shown.ends - Date.now()) / 1000));
    shown.over = !left;
    shown.textContent = left ? shown.dataset.text.replace("{left}", clock(left)) : shown.dataset.over;
    if (!left) { look(); }
  }

  function clock(seconds) { return Math.floor(seconds / 60) + ":" + ("0" + seconds % 60).slice(-2); }

  setInterval(count, 1000);
  count();
  plan();
})();

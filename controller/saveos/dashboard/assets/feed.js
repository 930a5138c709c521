// SharedWorker: one EventSource for all tabs, since a browser opens only six HTTP/1.1 connections per origin.
const ports = new Set();
let source = null;
let state = "off";

function tell(message) {
  for (const port of ports) port.postMessage(message);
}

function setState(value) {
  state = value;
  tell({ state });
}

function open() {
  source = new EventSource("/events");
  source.onopen = () => setState("on");
  source.onerror = () => {
    setState("off");
    // A refused answer (logged out) closes for good; a lost connection is retried by the browser.
    if (source.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(() => ports.size && !source && open(), 10000);
    }
  };
  source.addEventListener("change", (event) => tell({ topic: JSON.parse(event.data).topic }));
}

self.onconnect = ({ ports: [port] }) => {
  ports.add(port);
  port.onmessage = ({ data }) => {
    if (data !== "bye") return;
    ports.delete(port);
    if (!ports.size) {
      source?.close();
      source = null;
      state = "off";
    }
  };
  if (source) port.postMessage({ state });
  else open();
};

// Runs inside the page, with one of the CometD libraries: a client that survives the reload of its page.

window.interop = { heard: [], handshakes: [], connects: [], subscribed: 0 };

function start({ CometD, ReloadExtension }) {
  const { transport, channel } = Object.fromEntries(new URLSearchParams(location.search));
  const cometd = new CometD();
  cometd.configure({ url: `${location.origin}/cometd`, logLevel: 'warn' });
  for (const other of ['websocket', 'long-polling', 'callback-polling']) {
    if (other !== transport) cometd.unregisterTransport(other);
  }
  cometd.registerExtension('reload', new ReloadExtension());
  // As its manual says.
  window.addEventListener('beforeunload', () => cometd.reload());

  interop.cometd = cometd;
  cometd.addListener('/meta/connect', (message) => interop.connects.push(message));
  cometd.handshake((message) => {
    interop.handshakes.push(message);
    cometd.subscribe(channel, ({ data }) => interop.heard.push(data), (reply) => (interop.subscribed += reply.successful));
  });
}

// Runs inside the page, next to Faye's browser bundle and the server's own resume.js.

window.interop = {
  heard: [], // what the application was given
  gaps: [],
  resumed: 0,
  sessions: [],
  downs: 0,

  /** Subscribes, with no other transports than those left. */
  async open({ url, disabled, channel }) {
    // By default it waits 5 s after a failure.
    const client = new Faye.Client(url, { retry: 0.2 });
    for (const transport of disabled) client.disable(transport);
    this.client = client;
    client.addExtension({
      incoming: (message, callback) => {
        if (message.channel === '/meta/handshake' && message.successful) this.sessions.push(message.clientId);
        callback(message);
      },
    });
    client.addExtension(new WeftResume({ gap: (info) => this.gaps.push(info), resumed: () => (this.resumed += 1) }));
    client.on('transport:down', () => (this.downs += 1));
    await client.subscribe(channel, (data) => this.heard.push(data));
  },

  // Not part of Faye's API, but there is no public way to ask.
  transport() {
    return this.client._dispatcher._transport?.connectionType;
  },
};

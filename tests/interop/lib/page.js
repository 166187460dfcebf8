// Runs inside the page, next to Faye's browser bundle: one client, and notes of all it is given.

window.interop = {
  wire: [], // every message, before the client fans it out to callbacks
  calls: { exact: [], wildcard: [] },
  connectReplies: [], // when they came, in ms
  downs: 0,

  /** Subscribes, and resolves with the client id. */
  async open({ url, disabled, exact, wildcard, fence }) {
    const client = new Faye.Client(url);
    for (const transport of disabled) client.disable(transport);
    this.client = client;

    client.addExtension({
      incoming: (message, callback) => {
        this.wire.push({ ...message });
        if (message.channel === '/meta/connect') this.connectReplies.push(performance.now());
        callback(message);
      },
    });
    client.on('transport:down', () => (this.downs += 1));

    this.subscriptions = [
      client.subscribe(exact, (data) => this.calls.exact.push(data)),
      client.subscribe(wildcard).withChannel((_channel, data) => this.calls.wildcard.push(data)),
    ];
    await Promise.all([...this.subscriptions, client.subscribe(fence, () => {})]);
    return this.replies('/meta/handshake')[0].clientId;
  },

  // Not part of Faye's API, but there is no public way to ask.
  transport() {
    return this.client._dispatcher._transport?.connectionType;
  },

  replies(channel) {
    return this.wire.filter((m) => m.channel === channel && m.successful !== undefined);
  },

  data(channel) {
    return this.wire.filter((m) => m.channel === channel && m.data !== undefined).map((m) => m.data);
  },

  /**
   * Publishes in groups of five, one group a turn. Faye's client puts a group into one request, which
   * keeps its order; a larger burst it spreads over parallel requests, and those have no order.
   */
  async publish(channel, list) {
    for (let i = 0; i < list.length; i += 5) {
      await Promise.all(list.slice(i, i + 5).map((data) => this.client.publish(channel, data)));
    }
  },

  /** Resolves when the server has confirmed that both subscriptions are gone. */
  unsubscribe() {
    const confirmed = new Promise((resolve) => {
      this.client.addExtension({
        incoming: (message, callback) => {
          if (message.channel === '/meta/unsubscribe') setTimeout(check);
          callback(message);
        },
      });
      const check = () => {
        const replies = this.replies('/meta/unsubscribe');
        if (replies.length === 2) resolve(replies.map((m) => m.successful));
      };
    });
    for (const subscription of this.subscriptions) subscription.cancel();
    return confirmed;
  },

  async disconnect() {
    await this.client.disconnect();
  },
};

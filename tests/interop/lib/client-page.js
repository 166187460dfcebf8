// Runs inside a page: one client, and notes of all it is given. The script comes from the server.

window.interop = {
  told: [],
  data: {},

  load(url) {
    return new Promise((resolve, reject) => {
      const script = document.createElement('script');
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${url} does not load`));
      script.src = `${url}/client.js`;
      document.head.append(script);
    });
  },

  async open(url, options, channel) {
    await this.load(url);
    const client = (this.client = new Weft.Client(url, options));
    for (const name of ['connected', 'resumed', 'recovered', 'gap', 'session:new', 'stopped', 'transport', 'retry']) {
      client.on(name, (facts) => this.told.push({ ...facts, name, to: facts && facts.name }));
    }
    await this.listen(channel);
    return client.clientId;
  },

  async listen(channel) {
    const list = (this.data[channel] = []);
    await this.client.subscribe(channel, (data) => list.push(data));
  },

  names() {
    return this.told.map(({ name }) => name);
  },
};

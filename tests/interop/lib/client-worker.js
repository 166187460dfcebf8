// The client in a worker: loaded as a module, from the server; answers each message with what came of it.

self.onmessage = async ({ data: { url, channel } }) => {
  const { Client } = await import(`${url}/client.mjs`);
  const client = new Client(url);
  client.subscribe(channel, (data) => self.postMessage({ got: data, transport: client.transport }));
  await client.publish(channel, 'from a worker');
};

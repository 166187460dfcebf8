// An application as they were written for Faye, years ago.

var client = new Faye.Client(location.protocol + '//' + location.host + '/bayeux', { timeout: 120, retry: 5 });
client.disable('autodisconnect');

var Logger = {
  incoming: function (message, callback) {
    if (message.channel === '/meta/subscribe') document.title = message.subscription + ' ' + message.successful;
    callback(message);
  },
  outgoing: function (message, callback) {
    if (message.channel !== '/meta/subscribe') return callback(message);
    if (!message.ext) message.ext = {};
    message.ext.authToken = 'secret';
    callback(message);
  },
};
client.addExtension(Logger);

client.bind('transport:down', function () {
  document.body.className = 'offline';
});
client.bind('transport:up', function () {
  document.body.className = 'online';
});

var subscription = client.subscribe('/application/**', function (message) {
  var item = document.createElement('li');
  item.appendChild(document.createTextNode(message.user + ': ' + message.text));
  document.getElementById('messages').appendChild(item);
});

subscription.callback(function () {
  var publication = client.publish('/application/room/1', { user: 'me', text: 'I am here' });
  publication.callback(function () {
    document.body.setAttribute('data-published', 'yes');
  });
  publication.errback(function (error) {
    document.body.setAttribute('data-published', error.message);
  });
});

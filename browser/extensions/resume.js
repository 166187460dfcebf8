// Resume for the stock Faye and CometD clients, on a Weft server: each message is processed once, whatever breaks.
//
//     var resume = new WeftResume({ gap: function (info) { /* reload what may be missing */ } });
//     fayeClient.addExtension(resume);                    // Faye: before the first connect
//     cometd.registerExtension('resume', resume);         // CometD: before the handshake
//
// It remembers the newest position that was processed, tells it to the server with each connect, and drops what comes a
// second time. When the session was lost, the new one goes on from there with the same subscriptions. Where the server no
// longer has what was missed, `gap` is called, with `channels` if it knows which; the messages that are left come all the
// same. (`resumed` says that the session goes on; a `gap` may still follow.) With `replay: {'/news/today': -2}` a channel's
// first subscription asks for what is kept of it, and one that goes on under a new session does not ask again. One object
// serves one client. Other servers do not answer `ext.resume`, and then it does nothing.
(function (root, make) {
  if (typeof module === 'object' && module.exports) module.exports = make();
  else root.WeftResume = make();
})(typeof self !== 'undefined' ? self : this, function () {
  'use strict';

  /**
   * @param {{gap?: function({channels?: string[]}): void, resumed?: function(): void, stopped?: function(): void,
   *   replay?: Object<string, number>}} [options]
   *   `gap`: messages may be missing; `resumed`: a new session goes on where the last one ended; `stopped`: the server has
   *   ended the session for good (Faye's client says nothing then); `replay`: for channels, -2 or a position
   */
  function WeftResume(options) {
    this.options = options || {};
    this._forget();
  }

  // Faye passes a callback; CometD takes what is returned, and drops a message for null.
  WeftResume.prototype.outgoing = function (message, callback) {
    if (message.channel === '/meta/handshake') {
      var ext = { resume: true };
      this.claimed = null;
      if (this.active && this.position) {
        this.claimed = copy(this.position);
        ext.position = this.claimed;
        ext.subscriptions = this._wanted();
      }
      extend(message, ext);
    } else if (message.channel === '/meta/connect' && this.active) {
      // The object itself: a client may send this message again much later, and then it says where things stand then.
      extend(message, { position: this.position });
    } else if (message.channel === '/meta/subscribe' && this.active) {
      // A replay that it may bring has a count of its own, from here on.
      var replay = {};
      each(message.subscription, (name) => {
        delete this.replayed[name];
        if (name in (this.options.replay || {}) && !this.subscriptions[name]) replay[name] = this.options.replay[name];
      });
      extend(message, Object.keys(replay).length > 0 ? { resume: true, replay: replay } : { resume: true });
    } else if (message.channel === '/meta/unsubscribe') {
      each(message.subscription, (name) => {
        delete this.subscriptions[name];
        delete this.replayed[name];
      });
    } else if (message.channel === '/meta/disconnect') {
      // The application ends it: what follows is another story.
      this._forget();
    }
    return callback ? callback(message) : message;
  };

  WeftResume.prototype.incoming = function (message, callback) {
    var ext = message.ext || {};
    var news = true;
    if (message.channel === '/meta/handshake') {
      if (message.successful) this._begin(ext);
    } else if (message.channel === '/meta/connect') {
      if (message.successful) this._connected(ext);
      if (message.successful && message.advice && message.advice.reconnect === 'none') this._tell('stopped');
    } else if (message.channel === '/meta/subscribe') {
      // Of a list that was refused in part, the reply names those that were not.
      if (this.active) this._subscribed(message.successful ? message.subscription : Object.keys(ext.since || {}), ext);
    } else if (this.active && message.data !== undefined && ext.position) {
      news = this._isNews(message.channel, ext);
    }
    if (news) return callback ? callback(message) : message;
    return callback ? undefined : null;
  };

  WeftResume.prototype._begin = function (ext) {
    var before = this.subscriptions;
    var claimed = this.claimed;
    this.active = ext.resume === true;
    if (!this.active) return this._forget();
    // What was processed since the claim was made counts, where the server goes by the claim.
    for (var partition in claimed) {
      if (ext.position[partition] === claimed[partition]) ext.position[partition] = this.position[partition];
    }
    // A server that begins anew, lower.
    for (partition in this.lost) {
      if (!(this.lost[partition] <= ext.position[partition])) delete this.lost[partition];
    }
    // The reply's own object: CometD's reload extension keeps the reply, and so the newest position with it.
    this.position = ext.position;
    this.claimed = null;
    var goOn = ext.subscriptions || [];
    this.subscriptions = {};
    goOn.forEach((name) => (this.subscriptions[name] = before[name] || true));
    for (var name in this.replayed) if (goOn.indexOf(name) < 0) delete this.replayed[name];
    if (!claimed) return;
    var lost = Object.keys(before).filter((name) => !this.subscriptions[name]);
    if (lost.length > 0) this._tell('gap', { channels: lost });
    else this._tell('resumed');
  };

  /** The subscriptions for a new session: where each began, and how far its replay has come. */
  WeftResume.prototype._wanted = function () {
    var wanted = {};
    for (var name in this.subscriptions) {
      var start = this.subscriptions[name];
      var replayed = this.replayed[name];
      var due = replayed !== undefined && start !== true && replayed < start[0];
      wanted[name] = due ? Object.assign({ replay: replayed }, start) : start;
    }
    return wanted;
  };

  WeftResume.prototype._connected = function (ext) {
    if (!this.active || !ext.position) return;
    for (var partition in ext.position) {
      this.position[partition] = Math.max(this.position[partition] || 0, ext.position[partition]);
    }
    if (!ext.gap) return;
    // Told again until the server knows that it arrived: `lost` says up to where messages are missing. One that does not
    // say so is none that is known.
    var isNews = !ext.lost;
    for (partition in ext.lost) {
      if (ext.lost[partition] <= this.lost[partition]) continue;
      this.lost[partition] = ext.lost[partition];
      isNews = true;
    }
    if (isNews) this._tell('gap', {});
  };

  WeftResume.prototype._subscribed = function (subscription, ext) {
    var replay = ext.replay || {};
    each(subscription, (name) => {
      // The server records nothing of these.
      if (/^\/service\//.test(name)) return;
      this.subscriptions[name] = (ext.since || {})[name] || true;
      if (name in replay) this.replayed[name] = Math.max(this.replayed[name] || 0, replay[name]);
    });
    if (ext.gap) this._tell('gap', { channels: Object.keys(replay) });
  };

  WeftResume.prototype._isNews = function (channel, ext) {
    for (var partition in ext.position) {
      var number = ext.position[partition];
      if (ext.replay === true) {
        if (number <= this.replayed[channel]) return false;
        this.replayed[channel] = number;
      } else {
        if (number <= this.position[partition]) return false;
        this.position[partition] = number;
      }
    }
    return true;
  };

  WeftResume.prototype._forget = function () {
    this.active = false; // whether the server knows how
    this.position = null; // the newest processed, by partition
    this.claimed = null; // what the handshake under way says
    this.lost = {}; // up to where messages were missing, by partition
    this.replayed = {}; // the newest of each channel's replay
    this.subscriptions = {}; // what the server has accepted, with the position from which each counts
  };

  WeftResume.prototype._tell = function (name, info) {
    if (typeof this.options[name] === 'function') this.options[name](info);
  };

  function extend(message, fields) {
    // A copy: clients may share one `ext` between messages.
    message.ext = Object.assign({}, message.ext, fields);
  }

  function copy(position) {
    return Object.assign({}, position);
  }

  function each(names, act) {
    (Array.isArray(names) ? names : [names]).forEach(act);
  }

  return WeftResume;
});

// A placeholder: Weft's own browser client is not built yet.
//
// Faye serves its browser client at this address. Weft does not, and defines no `Faye` here that
// could be mistaken for it. Faye's official client works unchanged against this server: take
// `client/faye-browser-min.js` from the npm package `faye`, serve it with your pages, and
//
//     var client = new Faye.Client('/bayeux');   // this address without "/client.js"
//
(function () {
  var script = document.currentScript; // null where this is loaded as a module
  var mount = script && script.src.replace(/(\/client)?\.js(\?.*)?$/, '');
  console.warn(
    'weft: there is no browser client at this address yet. Use client/faye-browser-min.js of the npm package "faye" with new Faye.Client(' +
      (mount ? "'" + mount + "'" : '<address of the mount>') + ').'
  );
})();

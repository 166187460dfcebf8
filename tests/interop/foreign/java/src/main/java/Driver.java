import jakarta.websocket.ContainerProvider;
import jakarta.websocket.WebSocketContainer;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import org.cometd.bayeux.Channel;
import org.cometd.bayeux.Message;
import org.cometd.bayeux.client.ClientSession;
import org.cometd.bayeux.client.ClientSessionChannel;
import org.cometd.client.BayeuxClient;
import org.cometd.client.ext.AckExtension;
import org.cometd.client.ext.TimesyncClientExtension;
import org.cometd.client.http.jetty.JettyHttpClientTransport;
import org.cometd.client.transport.ClientTransport;
import org.cometd.client.websocket.jakarta.WebSocketTransport;
import org.eclipse.jetty.client.HttpClient;
import org.eclipse.jetty.util.ajax.JSON;

/**
 * Drives CometD's Java client: commands come as JSON lines on stdin, answers and events go out as such on stdout.
 */
public final class Driver {
    /** For an answer to a disconnect, and once more for the connect that it releases. */
    private static final long DISCONNECT_MS = 8_000;

    private static final JSON JSON_LINES = new JSON();
    private static final PrintStream OUT =
            new PrintStream(new FileOutputStream(FileDescriptor.out), false, StandardCharsets.UTF_8);

    private final Map<Long, Session> sessions = new ConcurrentHashMap<>();
    // Some of the client's calls block.
    private final ExecutorService threads = Executors.newCachedThreadPool(task -> {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    });
    private final HttpClient http = new HttpClient();
    private final WebSocketContainer sockets = ContainerProvider.getWebSocketContainer();

    public static void main(String[] arguments) throws Exception {
        // Stray output of a library must not be taken for ours.
        System.setOut(System.err);
        Driver driver = new Driver();
        driver.http.start();
        say(line("event", "ready"));

        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String text = lines.readLine(); text != null; text = lines.readLine()) {
            @SuppressWarnings("unchecked")
            Map<String, Object> command = (Map<String, Object>) JSON_LINES.fromJSON(text);
            driver.obey(command, new Answer(command.get("tag")));
        }
        System.exit(0);
    }

    private void obey(Map<String, Object> command, Answer answer) {
        try {
            Long number = (Long) command.get("client");
            Session session = sessions.get(number);
            String channel = (String) command.get("channel");
            switch ((String) command.get("do")) {
                case "open" -> {
                    Session opened = new Session(number, command);
                    sessions.put(number, opened);
                    opened.open(answer);
                }
                case "subscribe" -> session.subscribe((Long) command.get("subscription"), channel, answer);
                case "unsubscribe" -> session.unsubscribe((Long) command.get("subscription"), answer);
                case "publish" -> session.client.getChannel(channel).publish(command.get("data"), answer::reply);
                case "batch" -> session.batch(channel, (Object[]) command.get("list"), answer);
                case "call" -> session.call((String) command.get("target"), command.get("data"), answer);
                case "timesync" -> answer.succeed(
                        "lag", session.timesync.getLag(),
                        "offset", session.timesync.getOffset());
                case "disconnect" -> {
                    BayeuxClient client = sessions.remove(number).client;
                    threads.execute(() -> {
                        if (client.disconnect(DISCONNECT_MS)) {
                            answer.succeed();
                        } else {
                            answer.fail("the client did not get to the state DISCONNECTED");
                        }
                    });
                }
                default -> answer.fail("cannot " + command.get("do"));
            }
        } catch (Exception failure) {
            answer.fail(failure.toString());
        }
    }

    private final class Session {
        private final long number;
        private final BayeuxClient client;
        private final TimesyncClientExtension timesync = new TimesyncClientExtension();
        private final Map<Long, Subscription> subscriptions = new ConcurrentHashMap<>();

        private record Subscription(ClientSessionChannel channel, ClientSessionChannel.MessageListener listener) {}

        Session(long number, Map<String, Object> command) {
            this.number = number;
            ClientTransport transport = command.get("transport").equals("websocket")
                    ? new WebSocketTransport(null, null, sockets)
                    : new JettyHttpClientTransport(null, http);
            client = new BayeuxClient((String) command.get("url"), transport);
            for (Object extension : (Object[]) command.get("extensions")) {
                client.addExtension(extension.equals("ack") ? new AckExtension() : timesync);
            }
        }

        void open(Answer answer) {
            Map<String, Object> handshake = new ConcurrentHashMap<>();
            AtomicBoolean connected = new AtomicBoolean();
            listen(Channel.META_HANDSHAKE, message -> {
                if (!message.isSuccessful()) {
                    answer.reply(message);
                    return;
                }
                if (message.getExt() != null) {
                    handshake.put("ext", message.getExt());
                }
                say(line("event", "handshake", "client", number, "clientId", message.getClientId()));
            });
            listen(Channel.META_CONNECT, message -> {
                connected.set(message.isSuccessful());
                Map<String, Object> advice = message.getAdvice();
                if (advice != null && Message.RECONNECT_NONE_VALUE.equals(advice.get(Message.RECONNECT_FIELD))) {
                    say(line("event", "ended", "client", number, "error", "reconnect: none"));
                }
            });
            // A handshake is not all: the session is usable once its first connect is answered. And a client that
            // disconnects before it has sent the next one waits for the answer to that in vain.
            client.addExtension(new ClientSession.Extension() {
                @Override
                public boolean sendMeta(ClientSession session, Message.Mutable message) {
                    if (Channel.META_CONNECT.equals(message.getChannel()) && connected.get()) {
                        say(line("event", "transport", "client", number, "transport", client.getTransport().getName()));
                        answer.succeed("clientId", client.getId(), "ext", handshake.get("ext"));
                    }
                    return true;
                }
            });
            client.handshake();
        }

        private void listen(String channel, Consumer<Message> listener) {
            client.getChannel(channel)
                    .addListener((ClientSessionChannel.MessageListener) (on, message) -> listener.accept(message));
        }

        void subscribe(Long name, String channel, Answer answer) {
            ClientSessionChannel.MessageListener listener = (on, message) -> say(line(
                    "event", "message",
                    "client", number,
                    "subscription", name,
                    "channel", message.getChannel(),
                    "data", message.getData()));
            subscriptions.put(name, new Subscription(client.getChannel(channel), listener));
            client.getChannel(channel).subscribe(listener, answer::reply);
        }

        void unsubscribe(Long name, Answer answer) {
            Subscription gone = subscriptions.remove(name);
            gone.channel().unsubscribe(gone.listener(), answer::reply);
        }

        void batch(String channel, Object[] list, Answer answer) {
            AtomicInteger left = new AtomicInteger(list.length);
            client.batch(() -> {
                for (Object data : list) {
                    client.getChannel(channel).publish(data, message -> {
                        if (!message.isSuccessful() || left.decrementAndGet() == 0) {
                            answer.reply(message);
                        }
                    });
                }
            });
        }

        void call(String target, Object data, Answer answer) {
            client.remoteCall(target, data, message -> {
                if (message.isSuccessful()) {
                    answer.succeed("data", message.getData());
                } else {
                    answer.reply(message);
                }
            });
        }
    }

    /** The one answer to a command: what comes after the first is dropped. */
    private record Answer(Object tag, AtomicBoolean given) {
        Answer(Object tag) {
            this(tag, new AtomicBoolean());
        }

        void succeed(Object... more) {
            give(true, more);
        }

        void fail(String error) {
            give(false, "error", error);
        }

        void reply(Message message) {
            if (message.isSuccessful()) {
                succeed();
            } else {
                fail(JSON_LINES.toJSON(Map.of(
                        "channel", message.getChannel(),
                        "error", String.valueOf(message.get(Message.ERROR_FIELD)),
                        "failure", String.valueOf(message.get("failure")))));
            }
        }

        private void give(boolean ok, Object... more) {
            if (given.compareAndSet(false, true)) {
                Map<String, Object> answer = line(more);
                answer.put("tag", tag);
                answer.put("ok", ok);
                say(answer);
            }
        }
    }

    private static Map<String, Object> line(Object... pairs) {
        Map<String, Object> line = new HashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            line.put((String) pairs[i], pairs[i + 1]);
        }
        return line;
    }

    private static void say(Map<String, Object> line) {
        String text = JSON_LINES.toJSON(line);
        synchronized (OUT) {
            OUT.println(text);
            OUT.flush();
        }
    }
}

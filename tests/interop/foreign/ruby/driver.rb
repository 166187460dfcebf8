# Drives Faye's Ruby client: commands come as JSON lines on stdin, answers and events go out as such on stdout.

require 'eventmachine'
require 'faye'
require 'json'

# Seconds until a message is sent again that could not be; the client's own value is 5.
RETRY = 0.5

def say(line)
  $stdout.puts(line.to_json)
  $stdout.flush
end

# Tells what the client says nothing of.
class Watch
  attr_reader :client_id

  def initialize(number)
    @number = number
    @unsubscribing = {}
  end

  def unsubscribing(channel, answer)
    @unsubscribing[channel] = answer
  end

  def outgoing(message, callback)
    if message['channel'] == '/meta/connect'
      say(event: 'transport', client: @number, transport: message['connectionType'])
    end
    callback.call(message)
  end

  def incoming(message, callback)
    if message['channel'] == '/meta/handshake' && message['successful']
      @client_id = message['clientId']
      say(event: 'handshake', client: @number, clientId: @client_id)
    end
    if message['channel'] == '/meta/unsubscribe' && message['successful']
      @unsubscribing.delete(message['subscription'])&.succeed
    end
    if (message['advice'] || {})['reconnect'] == 'none'
      say(event: 'ended', client: @number)
    end
    callback.call(message)
  end
end

class Session
  def initialize(command)
    @number = command['client']
    @watch = Watch.new(@number)
    @client = Faye::Client.new(command['url'], retry: RETRY)
    @client.add_extension(@watch)
    # It always shakes hands by long-polling, and goes over to a WebSocket if it may.
    @client.disable('websocket') if command['transport'] == 'long-polling'
    @subscriptions = {}
  end

  def open(answer)
    @client.connect { answer.succeed(clientId: @watch.client_id) }
  end

  def subscribe(command, answer)
    subscription = @client.subscribe(command['channel']).with_channel do |channel, data|
      say(event: 'message', client: @number, subscription: command['subscription'], channel: channel, data: data)
    end
    @subscriptions[command['subscription']] = subscription
    answer.follow(subscription)
  end

  def unsubscribe(command, answer)
    @watch.unsubscribing(command['channel'], answer)
    @subscriptions.delete(command['subscription']).cancel
  end

  def publish(command, answer)
    answer.follow(@client.publish(command['channel'], command['data']))
  end

  # What is published in one turn of the reactor goes out together, where the transport can do that.
  def batch(command, answer)
    left = command['list'].size
    command['list'].each do |data|
      publication = @client.publish(command['channel'], data)
      publication.callback { answer.succeed if (left -= 1).zero? }
      publication.errback { |error| answer.refuse(error.message) }
    end
  end

  def disconnect(_command, answer)
    answer.follow(@client.disconnect)
  end
end

class Answer
  def initialize(tag)
    @tag = tag
  end

  def follow(deferrable)
    deferrable.callback { succeed }
    deferrable.errback { |error| refuse(error.message) }
  end

  def succeed(more = {})
    give({ tag: @tag, ok: true }.merge(more))
  end

  def refuse(error)
    give({ tag: @tag, ok: false, error: error })
  end

  private

  # Only the first counts.
  def give(line)
    say(line) unless @given
    @given = true
  end
end

# Reads the commands as they come.
module Commands
  def initialize
    @buffer = +''
    @sessions = {}
    super
  end

  def receive_data(data)
    @buffer << data
    while (line = @buffer.slice!(/\A.*\n/))
      obey(JSON.parse(line))
    end
  end

  def unbind
    EventMachine.stop
  end

  def obey(command)
    answer = Answer.new(command['tag'])
    case command['do']
    when 'open'
      (@sessions[command['client']] = Session.new(command)).open(answer)
    when 'subscribe', 'unsubscribe', 'publish', 'batch', 'disconnect'
      @sessions[command['client']].public_send(command['do'], command, answer)
    else
      answer.refuse("cannot #{command['do']}")
    end
  rescue StandardError => error
    answer.refuse(error.full_message(highlight: false))
  end
end

EventMachine.run do
  EventMachine.attach($stdin, Commands)
  say(event: 'ready')
end

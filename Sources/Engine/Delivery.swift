import Synchronization

/// Hands events to their streams on a thread of its own. Waking a client's task costs more than anything else that a token costs the
/// engine; so the step loop leaves its events here, all of a step at once, and goes on.
final class Delivery: Sendable {
  enum Item: Sendable {
    case token(Token, EventStream)
    case finished(Completion, EventStream)
    case end(EngineError?, EventStream)
  }

  /// A `GeneratedToken` on its way.
  struct Token: Sendable {
    var choice: Int
    var id: Int32
    var text: String
    var logprob: Double?
    var topLogprobs: [TokenLogprob]
    var time: Moment
    var logitsDigest: UInt64?
  }

  private struct State {
    var items: [Item] = []
    var isClosed = false
  }

  let capacity: Int
  private let state = Mutex(State())
  private let bell = Bell()
  private let nanoseconds = Atomic<Int64>(0)

  /// - Parameter capacity: items that are posted without allocating, before any have been.
  init(capacity: Int) {
    self.capacity = capacity
    state.withLock { $0.items.reserveCapacity(capacity) }
  }

  /// Processor time that deliveries have taken.
  var time: Duration { .nanoseconds(nanoseconds.load(ordering: .relaxed)) }

  /// Takes over the items; those of earlier calls are delivered before. Three arrays take turns, so that nothing is allocated once they
  /// have grown to the largest step.
  func post(_ items: inout [Item]) {
    guard !items.isEmpty else { return }
    state.withLock { state in
      if state.items.isEmpty {
        swap(&state.items, &items)
      } else {
        state.items += items
      }
    }
    items.removeAll(keepingCapacity: true)
    bell.ring()
  }

  /// Lets `run` end once everything is delivered.
  func close() {
    state.withLock { $0.isClosed = true }
    bell.ring()
  }

  /// Delivers until `close`.
  func run() {
    var items: [Item] = []
    items.reserveCapacity(capacity)
    var isClosed = false
    while !isClosed {
      bell.wait()
      state.withLock { state in
        swap(&state.items, &items)
        isClosed = state.isClosed
      }
      for item in items {
        switch item {
        case .token(let token, let stream): stream.continuation.yield(.token(GeneratedToken(token)))
        case .finished(let completion, let stream): stream.continuation.yield(.finished(completion))
        case .end(let error, let stream): stream.continuation.finish(throwing: error)
        }
      }
      items.removeAll(keepingCapacity: true)
      nanoseconds.store(ThreadClock.now.nanoseconds, ordering: .relaxed)
    }
  }
}

/// Where a request's events go.
final class EventStream: Sendable {
  typealias Continuation = AsyncThrowingStream<GenerationEvent, any Error>.Continuation

  let continuation: Continuation

  init(_ continuation: Continuation) { self.continuation = continuation }
}

extension GeneratedToken {
  fileprivate init(_ token: Delivery.Token) {
    self.init(
      choice: token.choice, id: token.id, text: token.text, logprob: token.logprob, topLogprobs: token.topLogprobs,
      time: token.time.instant, logitsDigest: token.logitsDigest)
  }
}

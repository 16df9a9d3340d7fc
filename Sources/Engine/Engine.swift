import Checkpoints
import KVQuantization
import ModelFamilies
import PagedCache
import Synchronization
import TextCodec

/// Serves requests with one model from one paged KV cache. All methods can be called from any thread or task.
///
/// One thread of the engine's own runs the step loop; it waits without using the processor while there is nothing to do. What a
/// request's stream yields depends on the request alone: not on other requests, cached prefixes, chunk sizes or preemptions.
public final class Engine: Sendable {
  public let configuration: EngineConfiguration
  /// Nil: prompts and answers are token ids.
  public let tokenizer: Tokenizer?
  /// Tokens that prompt and answer together may have.
  public let contextLength: Int
  public let vocabularySize: Int
  /// Tokens that the pool holds.
  public let poolTokens: Int
  /// Bytes of the pool, the draft layers' included.
  public let poolBytes: Int
  /// How the pool's size came about.
  public let poolReason: String
  public let identity: CacheIdentity
  /// The attention backend that was chosen, and why.
  public let attentionDecision: (name: String, reason: String)
  /// Defaults for sampling that come with the checkpoint.
  public let generation: GenerationConfiguration
  /// Sentences for the user, found while loading: scales that were ignored and the like.
  public let warnings: [String]
  private let pageBytes: Int
  private let mailbox: Mailbox
  private let published: StatisticsBox

  /// Starts an engine over a model that only it will use.
  /// - Throws: `EngineError`, `PagedCacheError`.
  public init(_ loaded: sending LoadedModel, configuration: EngineConfiguration) throws {
    let model = loaded.model
    let layout = try model.cacheLayout(configuration.recipes, pageSize: configuration.pageSize)
    contextLength = min(model.contextLimit, configuration.contextLength ?? .max)
    vocabularySize = model.vocabularySize
    let draft = try DraftPlan(model, configuration)
    pageBytes = layout.recordBytes * model.layerCount + (draft?.pageBytes ?? 0)
    let plan = try PoolPlan.resolve(
      configuration, pageBytes: pageBytes, contextLength: contextLength, availableMemory: PoolPlan.availableMemory())
    let scales = loaded.scales ?? Array(repeating: .one, count: model.layerCount)
    let pool = try PagePool(
      layout: layout, layerCount: model.layerCount, pageCount: plan.pageCount, scales: scales)
    let swap =
      configuration.swapSpace > 0 ? try SwapSpace(byteCount: configuration.swapSpace, pageBytes: pageBytes) : nil
    let cache = CacheManager(
      pool: pool, draftPool: try draft?.pool(pageCount: plan.pageCount, scales: loaded.draftScales), swap: swap,
      sharesPrefixes: configuration.sharesPrefixes)

    let plain = CacheRecipes(key: .bf16, value: .bf16, rope: .bf16)
    let reference = try model.cacheLayout(plain, pageSize: configuration.pageSize)
    var statistics = EngineStatistics(
      layout, layerCount: model.layerCount, draft, pageBytes: pageBytes, reference: reference)
    statistics.kvCache.pageCount = plan.pageCount
    statistics.kvCache.freePages = plan.pageCount
    statistics.kvCache.swapSlots = swap?.slotCount ?? 0

    self.configuration = configuration
    tokenizer = loaded.tokenizer
    attentionDecision = loaded.attentionDecision
    generation = loaded.generation
    warnings = loaded.warnings
    poolTokens = plan.pageCount * configuration.pageSize
    poolBytes = pageBytes * plan.pageCount
    poolReason = plan.reason
    mailbox = Mailbox()
    published = StatisticsBox(statistics)
    let delivery = Delivery(capacity: 4 * min(configuration.maxRunningRequests, 1024))
    let core = EngineCore(
      loaded: loaded, configuration: configuration, cache: cache, mailbox: mailbox, delivery: delivery,
      published: published)
    identity = core.identity
    try EngineThread.start { [mailbox] in
      delivery.run()
      mailbox.announceStop()
    }
    let transfer = Transfer(core)
    do throws(EngineError) { try EngineThread.start { transfer.value.run() } } catch {
      delivery.close()
      throw error
    }
  }

  deinit { _ = mailbox.post(.shutDown(drain: false)) }

  // MARK: Requests

  /// Starts a request. The stream yields each choice's tokens and its end, and throws `EngineError` if the request can't be
  /// served: a refused request throws at once. Dropping the stream, or cancelling the task that reads it, ends the request.
  public func generate(_ request: Request) -> AsyncThrowingStream<GenerationEvent, any Error> {
    let (stream, continuation) = AsyncThrowingStream.makeStream(of: GenerationEvent.self)
    do throws(EngineError) {
      let (prompt, maxTokens) = try validate(request)
      let stops = try StopStrings(request.sampling.stop)
      let (_, queued) = mailbox.queuedCount.add(1, ordering: .relaxed)
      guard queued <= configuration.maxQueuedRequests else {
        mailbox.queuedCount.subtract(1, ordering: .relaxed)
        throw .overloaded(waiting: queued - 1)
      }
      let id = mailbox.nextID()
      let state = RequestState(
        id: id, request: request, prompt: prompt, maxTokens: maxTokens, stops: stops, stream: EventStream(continuation))
      // The handler keeps the engine alive as long as the stream is read.
      continuation.onTermination = { [self] reason in
        if case .cancelled = reason { _ = mailbox.post(.cancel(id: id)) }
      }
      guard mailbox.post(.submit(state)) else {
        mailbox.queuedCount.subtract(1, ordering: .relaxed)
        throw .shutDown
      }
    } catch {
      continuation.finish(throwing: error)
    }
    return stream
  }

  private func validate(_ request: Request) throws(EngineError) -> (prompt: [Int32], maxTokens: Int) {
    try RequestLimits(
      contextLength: contextLength, vocabularySize: vocabularySize, poolTokens: poolTokens, tokenizer: tokenizer
    ).validate(request)
  }

  /// As of the last step.
  public func statistics() -> EngineStatistics { published.value.withLock { $0 } }

  /// Requests that wait for their first step.
  public var queuedRequestCount: Int { mailbox.queuedCount.load(ordering: .relaxed) }

  // MARK: Saved prefixes

  /// Writes the keys and values of a prompt to a file, computing those that are not cached.
  /// - Throws: `EngineError`, or `PagedCacheError` for a file that can't be written.
  public func save(prefix prompt: Request.Prompt, to path: String) async throws {
    let request = Request(prompt: prompt, sampling: try SamplingParameters(maxTokens: 0))
    let tokens = try validate(request).prompt
    for try await _ in generate(request) {}
    let saved = try await perform { core in try core.cache.savedPrefix(of: tokens) }
    guard let saved else { throw EngineError.notCached(tokens: tokens.count) }
    try saved.write(to: path, identity: identity)
  }

  /// Brings a saved prompt's keys and values into the prefix cache.
  /// - Returns: the prompt's tokens.
  /// - Throws: `PagedCacheError` for a file that is damaged, foreign, or of another model, recipe or layout.
  @discardableResult
  public func load(from path: String) async throws -> [Int32] {
    let saved = try SavedPrefix.read(
      from: path, expecting: identity, pageSize: configuration.pageSize, pageBytes: pageBytes)
    try await perform { core in try core.cache.adopt(saved) }
    return saved.tokens
  }

  /// Forgets cached prefixes that no running request uses.
  public func dropCachedPrefixes() async throws {
    try await perform { core in core.cache.evictAll() }
  }

  /// The pages of tokens as they lie in the pools, for tests that look for traces; nil unless all of them are cached.
  package func pageContents(of tokens: [Int32]) async throws -> [UInt8]? {
    try await perform { core in core.cache.pageContents(of: tokens) }
  }

  /// Checks the cache's books between two steps.
  /// - Throws: `PagedCacheError.corrupted`, a defect of Nibble.
  public func checkIntegrity() async throws {
    try await perform { core in try core.checkIntegrity() }
  }

  // MARK: The end

  /// Takes no more requests and waits until the engine's thread is done.
  /// - Parameter drain: whether requests that are running or waiting complete; otherwise they end as cancelled.
  public func shutDown(drain: Bool = true) async {
    await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
      _ = mailbox.post(.shutDown(drain: drain))
      mailbox.whenStopped { continuation.resume() }
    }
  }

  private func perform<Result: Sendable>(
    _ body: @escaping @Sendable (EngineCore) throws -> Result
  ) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
      let isOpen = mailbox.post(
        .perform { core in continuation.resume(with: Swift.Result { try body(core) }) })
      if !isOpen { continuation.resume(throwing: EngineError.shutDown) }
    }
  }
}

import CSIMD
import Engine
import KVQuantization
import ModelFamilies
import Operators
import PagedCache
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A language model without arithmetic that notices every mistake of an engine: a token's stored word depends on the stored word
/// before it, and logits depend on all stored words of the context, read through the page table.
final class FakeModel: LanguageModel {
  let vocabularySize: Int
  let layerCount = 2
  let contextLimit: Int
  /// A step that brings this token fails.
  var failingToken: Int32 = -1
  /// Logits after this token are NaN.
  var poisonousToken: Int32 = -1
  /// Steps wait where this is closed.
  var gate: Gate?

  private let headDimension: Int

  init(vocabularySize: Int = 64, contextLimit: Int = 4096, headDimension: Int = 32) {
    self.vocabularySize = vocabularySize
    self.headDimension = headDimension
    self.contextLimit = contextLimit
  }

  struct Failure: Error {}

  func cacheLayout(_ recipes: CacheRecipes, pageSize: Int) throws(PagedCacheError) -> CacheLayout {
    .mha(
      try MHALayout(
        kvHeadCount: 1, headDimension: headDimension, pageSize: pageSize, recipeK: recipes.key, recipeV: recipes.value))
  }

  func forward(_ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>) throws {
    gate?.pass()
    guard !batch.tokenIDs.contains(failingToken) else { throw Failure() }
    var logitsRow = 0
    for sequence in 0..<batch.sequenceCount {
      let pages = batch.pageTables[
        Int(batch.pageTableOffsets[sequence])..<Int(batch.pageTableOffsets[sequence + 1])]
      func slot(_ position: Int, layer: Int) -> Slot {
        let page = Int(pages[pages.startIndex + position / pool.layout.pageSize])
        return Slot(
          record: pool.record(page: page, layer: layer), token: position % pool.layout.pageSize, regions: pool.regions)
      }
      for row in Int(batch.queryOffsets[sequence])..<Int(batch.queryOffsets[sequence + 1]) {
        let position = Int(batch.positions[row])
        for layer in 0..<layerCount {
          let before = position == 0 ? 17 : slot(position - 1, layer: layer).read()
          slot(position, layer: layer).write(Self.mix(before, UInt32(bitPattern: batch.tokenIDs[row]) &+ UInt32(layer)))
        }
        guard logitsRow < batch.logitsRows.count, Int(batch.logitsRows[logitsRow]) == row else { continue }
        var hash: UInt32 = 1
        for position in 0...position {
          for layer in 0..<layerCount {
            hash = Self.mix(hash, slot(position, layer: layer).read())
          }
        }
        for token in 0..<vocabularySize {
          let bits = Self.mix(hash, UInt32(token))
          logits[logitsRow * vocabularySize + token] = Float(bits >> 8) * 0x1p-21 - 4
        }
        if batch.tokenIDs[row] == poisonousToken { logits[logitsRow * vocabularySize] = .nan }
        logitsRow += 1
      }
    }
  }

  /// A token's rows in one record, where the record layout has them. Every byte depends on the word that was written.
  private struct Slot {
    let record: UnsafeMutableRawPointer
    let token: Int
    let regions: [CacheRegion]

    func write(_ word: UInt32) {
      forEachRow { view, row, codeBytes, salt in
        for place in row.indices { row[place] = Self.byte(of: word, place, salt) }
        guard let codes = row.baseAddress else { return }
        nb_region_scatter_row(&view, Int32(token), codes, codes + codeBytes)
      }
    }

    /// The word that was written; another one where any byte of the rows is not as it was.
    func read() -> UInt32 {
      var word: UInt32 = 0
      forEachRow { view, row, codeBytes, salt in
        guard let codes = row.baseAddress else { return }
        nb_region_gather_row(&view, Int32(token), codes, codes + codeBytes)
        if salt == 0 { for place in 0..<4 { word |= UInt32(row[place] ^ UInt8(place)) << UInt32(8 * place) } }
        for place in row.indices where row[place] != Self.byte(of: word, place, salt) {
          word = FakeModel.mix(word, UInt32(row[place]))
        }
      }
      return word
    }

    private static func byte(of word: UInt32, _ place: Int, _ salt: Int) -> UInt8 {
      UInt8(truncatingIfNeeded: word >> UInt32(8 * (place % 4))) ^ UInt8(truncatingIfNeeded: place + salt)
    }

    /// Calls `body` with each region, memory for a row of it, the row's bytes of codes, and a number that tells regions apart.
    private func forEachRow(_ body: (inout nb_region, UnsafeMutableBufferPointer<UInt8>, Int, Int) -> Void) {
      for (index, region) in regions.enumerated() {
        var view = nb_region(region, record: record)
        let bytes = region.recipe.rowBytes(dimension: region.dimension)
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: bytes) { row in
          row.initialize(repeating: 0)
          body(&view, row, region.recipe.codeBytes(dimension: region.dimension), 64 * index)
        }
      }
    }
  }

  private static func mix(_ a: UInt32, _ b: UInt32) -> UInt32 {
    var hash = (a ^ b &* 0x9E37_79B1) &* 0x85EB_CA6B
    hash ^= hash >> 13
    hash &*= 0xC2B2_AE35
    return hash ^ hash >> 16
  }
}

/// Holds a model in its step, so that a test can post what the next step is to find.
final class Gate: Sendable {
  private let isOpen = Atomic(false)
  private let isReached = Atomic(false)

  func open() { isOpen.store(true, ordering: .releasing) }

  /// Waits until a step waits.
  func reached() async throws {
    while !isReached.load(ordering: .acquiring) { try await Task.sleep(for: .milliseconds(1)) }
  }

  fileprivate func pass() {
    isReached.store(true, ordering: .releasing)
    while !isOpen.load(ordering: .acquiring) { usleep(100) }
  }
}

/// What a request's stream gave for one choice.
struct Outcome: Equatable {
  var tokens: [Int32] = []
  var digests: [UInt64] = []
  var reason: FinishReason?
}

func makeEngine(
  endTokens: [Int32] = [], failingToken: Int32 = -1, poisonousToken: Int32 = -1, contextLimit: Int = 4096,
  fingerprint: String = "fake", gate: Gate? = nil, _ configuration: EngineConfiguration
) throws -> Engine {
  let model = FakeModel(contextLimit: contextLimit)
  model.failingToken = failingToken
  model.poisonousToken = poisonousToken
  model.gate = gate
  return try Engine(
    LoadedModel(model: model, endTokens: endTokens, fingerprint: fingerprint, arithmetic: "fake"),
    configuration: configuration)
}

/// Small pages and a step that notices broken books.
func configure(
  poolTokens: Int = 4096, recipe: KVRecipe = .nvfp4, chunk: Int = 64, running: Int = 64, queued: Int = 8192,
  policy: SchedulingPolicy = .fcfs, sharesPrefixes: Bool = true, swap: Int = 0, contextLength: Int? = nil
) throws -> EngineConfiguration {
  try EngineConfiguration(
    recipes: CacheRecipes(recipe), pageSize: 16, poolSize: .tokens(poolTokens), chunkedPrefillSize: chunk,
    maxRunningRequests: running, maxQueuedRequests: queued, schedulingPolicy: policy, sharesPrefixes: sharesPrefixes,
    swapSpace: swap, contextLength: contextLength, checksIntegrity: true)
}

func request(_ tokens: [Int32], maxTokens: Int = 12, seed: UInt64? = nil) throws -> Request {
  var request = Request(
    tokens: tokens,
    sampling: try SamplingParameters(temperature: seed == nil ? 0 : 1, seed: seed, maxTokens: maxTokens))
  request.digestsLogits = true
  return request
}

/// Pseudo-random prompts that don't change between runs.
func prompt(_ seed: Int, length: Int, vocabulary: Int32 = 64) -> [Int32] {
  (0..<length).map { Int32(truncatingIfNeeded: ($0 &* 7919 &+ seed &* 104_729) ^ ($0 >> 2) ^ seed) & (vocabulary - 1) }
}

extension Engine {
  /// Runs a request to its end.
  func outcomes(of request: Request) async throws -> [Outcome] {
    var outcomes = Array(repeating: Outcome(), count: request.choiceCount)
    for try await event in generate(request) {
      switch event {
      case .token(let token):
        outcomes[token.choice].tokens.append(token.id)
        if let digest = token.logitsDigest { outcomes[token.choice].digests.append(digest) }
      case .finished(let completion): outcomes[completion.choice].reason = completion.reason
      }
    }
    return outcomes
  }

  func outcome(of request: Request) async throws -> Outcome { try await outcomes(of: request)[0] }

  /// Runs requests at the same time.
  func outcomes(ofAll requests: [Request]) async throws -> [Outcome] {
    let streams = requests.map { generate($0) }
    var all: [Outcome] = []
    for stream in streams {
      var outcome = Outcome()
      for try await event in stream {
        switch event {
        case .token(let token):
          outcome.tokens.append(token.id)
          if let digest = token.logitsDigest { outcome.digests.append(digest) }
        case .finished(let completion): outcome.reason = completion.reason
        }
      }
      all.append(outcome)
    }
    return all
  }
}

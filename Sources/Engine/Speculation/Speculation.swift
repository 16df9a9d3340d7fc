import ModelFamilies

/// Guessing tokens ahead of the model and checking several in one step.
public struct Speculation: Hashable, Sendable {
  /// --speculative-algorithm
  public enum Algorithm: String, CaseIterable, Hashable, Sendable {
    /// The model's own layer for multi-token prediction.
    case mtp
  }

  public let algorithm: Algorithm
  /// --speculative-num-draft-tokens: tokens guessed before each check.
  public let draftTokenCount: Int
  /// --speculative-draft-kv-cache-dtype, -rope: of the draft layers' pages; nil takes the main model's.
  public let recipes: CacheRecipes?

  /// - Throws: `EngineError.invalidConfiguration`.
  public init(
    algorithm: Algorithm = .mtp, draftTokenCount: Int = 1, recipes: CacheRecipes? = nil
  ) throws(EngineError) {
    guard (1...16).contains(draftTokenCount) else {
      throw .invalidConfiguration(
        option: "--speculative-num-draft-tokens", expected: "1 to 16", found: "\(draftTokenCount)")
    }
    self.algorithm = algorithm
    self.draftTokenCount = draftTokenCount
    self.recipes = recipes
  }
}

/// What guessing has brought.
public struct SpeculationStatistics: Hashable, Sendable {
  /// Steps of sequences that checked drafts.
  public var checks = 0
  public var draftTokens = 0
  /// Drafts that became part of an answer.
  public var acceptedTokens = 0
  /// Tokens that those steps gave: the accepted ones and the model's own after them.
  public var tokens = 0
  /// Recipes of the draft layers' pages, as `KVCacheStatistics` has the main model's.
  public var draftDtypeK = ""
  public var draftDtypeV = ""
  /// Bytes of one token over the draft layers.
  public var draftBytesPerToken = 0

  public init() {}

  public var acceptanceRate: Double { draftTokens == 0 ? 0 : Double(acceptedTokens) / Double(draftTokens) }
  public var tokensPerStep: Double { checks == 0 ? 0 : Double(tokens) / Double(checks) }
}

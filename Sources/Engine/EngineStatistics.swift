import PagedCache

/// What an engine has done and holds, as of its last step.
public struct EngineStatistics: Hashable, Sendable {
  public var runningRequests = 0
  public var waitingRequests = 0
  public var finishedRequests = 0
  public var peakRunningRequests = 0
  public var steps = 0
  /// Prompt tokens computed (also those computed again after a preemption).
  public var prefillTokens = 0
  /// Prompt tokens found in the prefix cache.
  public var cachedPromptTokens = 0
  public var generatedTokens = 0
  public var preemptions = 0
  /// Preemptions whose pages went to the swap space.
  public var swapOuts = 0
  /// Time in the model.
  public var modelTime = Duration.zero
  /// Processor time of the engine's thread outside of the model: scheduling, sampling, text.
  public var overheadTime = Duration.zero
  /// Processor time of the thread that hands events to the clients' streams, beside the steps.
  public var deliveryTime = Duration.zero
  public var speculation = SpeculationStatistics()
  public var kvCache = KVCacheStatistics()

  public init() {}

  /// Of an engine that has done nothing yet; its pages are to be filled in.
  /// - Parameters:
  ///   - pageBytes: of the main model's records and the draft layers'.
  ///   - reference: the main model's layout in bf16.
  init(_ layout: CacheLayout, layerCount: Int, _ draft: DraftPlan?, pageBytes: Int, reference: CacheLayout) {
    (kvCache.dtypeK, kvCache.dtypeV) = layout.recipeNames
    if layout.isMLA { kvCache.partNames = ["latent", "rotary key"] }
    kvCache.bytesPerToken = pageBytes / layout.pageSize
    kvCache.ratioToBF16 = Double(reference.recordBytes * (layerCount + (draft?.layerCount ?? 0))) / Double(pageBytes)
    kvCache.pageSize = layout.pageSize
    if let draft {
      (speculation.draftDtypeK, speculation.draftDtypeV) = draft.layout.recipeNames
      speculation.draftBytesPerToken = draft.pageBytes / layout.pageSize
    }
  }
}

/// The pool and what is in it.
public struct KVCacheStatistics: Hashable, Sendable {
  /// Recipe of the keys (MLA: of the latent).
  public var dtypeK = ""
  /// Recipe of the values (MLA: of the rotary key).
  public var dtypeV = ""
  /// What people call the two: "K" and "V"; MLA: "latent" and "rotary key".
  public var partNames = ["K", "V"]
  /// Bytes of one token over all layers, the draft layers' included.
  public var bytesPerToken = 0
  /// The same geometry's bytes in bf16, divided by `bytesPerToken`.
  public var ratioToBF16 = 0.0
  public var pageSize = 0
  public var pageCount = 0
  /// Pages that running sequences hold.
  public var activePages = 0
  /// The most there were.
  public var peakActivePages = 0
  /// Pages that only the prefix cache holds.
  public var cachedPages = 0
  public var freePages = 0
  public var evictedPages = 0
  public var copiedPages = 0
  public var swapSlots = 0
  public var swapSlotsUsed = 0
  /// NaN and infinite values that the encoders replaced.
  public var replacedNonfinite: UInt64 = 0
  /// Block scales that were subnormal, or zero though the block wasn't, among all block scales.
  public var subnormalScaleShare = 0.0

  public init() {}

  /// Such as "latent nvfp4, rotary key bf16".
  public var recipes: String { zip(partNames, [dtypeK, dtypeV]).map { "\($0) \($1)" }.joined(separator: ", ") }
  public var totalTokens: Int { pageCount * pageSize }
  /// Tokens' worth of pages in use, by sequences or the prefix cache.
  public var tokensUsed: Int { (pageCount - freePages) * pageSize }
  public var bytesUsed: Int { tokensUsed * bytesPerToken }
}

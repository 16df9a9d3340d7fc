import Checkpoints
import KVQuantization
import ModelFamilies
import PagedCache
import TextCodec

/// A model with all that the engine needs to know of it. Handed over to the engine's thread as a whole.
public struct LoadedModel {
  public var model: any LanguageModel
  /// Nil: prompts and answers are token ids.
  public var tokenizer: Tokenizer?
  /// Ids that end an answer.
  public var endTokens: [Int32]
  /// FP32 factors, one pair a layer; nil is 1 for all.
  public var scales: [DecodeScales]?
  /// The same of the draft layers.
  public var draftScales: [DecodeScales]?
  /// Names the weights; saved prefixes carry it.
  public var fingerprint: String
  /// Names the implementation that computes; saved prefixes carry it.
  public var arithmetic: String
  /// What the encoders have met so far.
  public var encodeStatistics: () -> EncodeStatistics
  /// The attention backend that was chosen, and why.
  public var attentionDecision = (name: "", reason: "")
  /// Defaults for sampling that come with the checkpoint.
  public var generation = GenerationConfiguration()
  /// Sentences for the user, found while loading.
  public var warnings: [String] = []

  public init(
    model: any LanguageModel, tokenizer: Tokenizer? = nil, endTokens: [Int32] = [], scales: [DecodeScales]? = nil,
    fingerprint: String, arithmetic: String, encodeStatistics: @escaping () -> EncodeStatistics = { EncodeStatistics() }
  ) {
    self.model = model
    self.tokenizer = tokenizer
    self.endTokens = endTokens
    self.scales = scales
    self.fingerprint = fingerprint
    self.arithmetic = arithmetic
    self.encodeStatistics = encodeStatistics
  }
}

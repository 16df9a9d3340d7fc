import CPUBackend
import CSIMD
import Checkpoints
import KVQuantization
import ModelFamilies
import Operators
import PagedCache

/// A loaded model with the device it runs on: what the engine and the offline tools share.
public final class ModelRuntime {
  public let checkpoint: Checkpoint
  public let model: any LanguageModel
  public let operators: CPUOperators
  /// The attention backend that was chosen, and why.
  public let attentionDecision: (name: String, reason: String)
  /// What was asked for: it is part of the identity of saved prefixes.
  public let attentionPrecision: AttentionPrecision

  /// - Parameters:
  ///   - attention: which backends are wanted, and for which cache.
  ///   - threadCount: workers, the calling thread included; nil takes one per processor.
  ///   - weightType: what weights are converted to when loaded; nil keeps the checkpoint's.
  ///   - speculation: loads the model's layers for multi-token prediction too.
  ///   - progress: called with the share of the weights that is loaded.
  /// - Throws: `SupportError` before any weight is read, `CheckpointError`.
  public init(
    directory: String, attention request: AttentionRequest = AttentionRequest(), threadCount: Int? = nil,
    weightType: CPUWeightType? = nil, speculation: Speculation? = nil, progress: (Double) -> Void = { _ in }
  ) throws {
    let configuration = try ModelConfiguration(directory: directory)
    let choice = try request.resolve(configuration)
    if let speculation { try request.checkDrafts(speculation, configuration, choice) }
    checkpoint = try Checkpoint(directory: directory)
    let workers = WorkerPool(threadCount: threadCount ?? WorkerPool.availableProcessorCount)
    attentionDecision = request.decision(choice, threadCount: workers.threadCount)
    attentionPrecision = request.precision
    let attention = request.makeBackend(choice, workers: workers)
    operators = CPUOperators(attention: attention, workers: workers, weightType: weightType)
    model = try ModelLoader.load(checkpoint, operators: operators, drafts: speculation != nil, progress: progress)
  }
}

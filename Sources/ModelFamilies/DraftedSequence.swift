import Operators
import PagedCache

/// One sequence on its way through a model and its draft layers, from its first token on: what an engine does for many, without one.
public struct DraftedSequence {
  private let model: any DraftingModel
  /// The draft layers' pages.
  private let pool: PagePool
  /// [draft layers, hidden size] of the last token: what each draft layer's next row comes from.
  public private(set) var states: [Float]

  /// - Parameter pool: the draft layers'.
  public init(_ model: any DraftingModel, pool: PagePool) {
    self.model = model
    self.pool = pool
    states = Array(repeating: 0, count: model.draftLayerCount * model.hiddenSize)
  }

  /// Runs the model and all draft layers over the sequence's next tokens.
  /// - Parameters:
  ///   - batch: the next tokens of this sequence alone.
  ///   - pool: the main model's.
  ///   - logits: [logitsRows.count, vocabularySize] of the main model.
  public mutating func forward(
    _ batch: StepBatch, pool main: PagePool, logits: UnsafeMutableBufferPointer<Float>
  ) throws {
    let width = model.hiddenSize
    let none = UnsafeMutableBufferPointer<Float>(start: nil, count: 0)
    var hidden = [Float](repeating: 0, count: batch.tokenCount * width)
    try hidden.withUnsafeMutableBufferPointer { try model.forward(batch, pool: main, logits: logits, hidden: $0) }
    for layer in 0..<model.draftLayerCount {
      let own = layer * width..<(layer + 1) * width
      let previous = states[own] + hidden.dropLast(width)
      states.replaceSubrange(own, with: hidden.suffix(width))
      try previous.withUnsafeBufferPointer { previous in
        try hidden.withUnsafeMutableBufferPointer { hidden in
          try model.draft(
            batch, layer: layer, pool: pool, previousHidden: previous, logits: none,
            hidden: layer + 1 < model.draftLayerCount ? hidden : none)
        }
      }
    }
  }
}

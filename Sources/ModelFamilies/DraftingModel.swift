import Operators
import PagedCache

/// A model that guesses ahead: from the hidden state of token i - 1 and token i itself, its first draft layer predicts token i + 1
/// without running the other layers, and the second from the first's hidden states the token after that (multi-token prediction,
/// arXiv 2412.19437, section 2.2).
///
/// Draft layers have a pool of their own, of the model's `cacheLayout` with recipes of its own. What one stores for a token is, as
/// with every layer, a function of the tokens up to that one, so their pages are shared, swapped and saved beside the others. The first
/// token of a sequence has no predecessor; its hidden state is zeros.
public protocol DraftingModel: LanguageModel {
  /// Values of a hidden state.
  var hiddenSize: Int { get }
  /// Layers of the draft pool, at least one.
  var draftLayerCount: Int { get }

  /// As `forward`.
  /// - Parameter hidden: [T, hiddenSize] receives the hidden states of the step's tokens, after the final norm.
  func forward(
    _ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>,
    hidden: UnsafeMutableBufferPointer<Float>) throws

  /// Runs a draft layer over tokens and stores what it keeps of them.
  /// - Parameters:
  ///   - layer: of the draft pool.
  ///   - pool: the draft layers'.
  ///   - previousHidden: [T, hiddenSize] the hidden state of the token before each token of the batch: for the first layer from
  ///     `forward`, for the others from the layer before.
  ///   - logits: [logitsRows.count, vocabularySize] for the token after each; empty if none are wanted.
  ///   - hidden: [T, hiddenSize] receives the layer's hidden states; empty if they aren't wanted.
  func draft(
    _ batch: StepBatch, layer: Int, pool: PagePool, previousHidden: UnsafeBufferPointer<Float>,
    logits: UnsafeMutableBufferPointer<Float>, hidden: UnsafeMutableBufferPointer<Float>) throws
}

/// What can be wrong with a draft.
public enum DraftError: Error, Hashable, Sendable, CustomStringConvertible {
  case noDraftLayer(Int, count: Int)

  public var description: String {
    switch self {
    case .noDraftLayer(let layer, let count):
      """
      expected one of the \(count) draft layers that are loaded, found layer \(layer); load the model with \
      --speculative-algorithm mtp
      """
    }
  }
}

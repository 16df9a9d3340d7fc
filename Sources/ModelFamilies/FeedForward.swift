import Checkpoints
import Operators

/// Operators of every family.
public typealias ModelOperators = ExpertOperators & HostOperators & LatentOperators

/// Arrays of a step that layers of equal width share.
final class FeedForwardArrays<Ops: Operators> {
  private let operators: Ops
  private var byWidth: [Int: Ops.Activations] = [:]

  init(_ operators: Ops) { self.operators = operators }

  subscript(width: Int) -> Ops.Activations {
    if let array = byWidth[width] { return array }
    let array = operators.makeActivations(width: width)
    byWidth[width] = array
    return array
  }
}

/// down(silu(gate x) * up x) (arXiv 2002.05202, SwiGLU).
struct GatedFeedForward<Ops: Operators> {
  private let gateUp: Ops.Matrix
  private let gateUpBias: Ops.Vector?
  private let down: Ops.Matrix
  private let downBias: Ops.Vector?
  private let gated: Ops.Activations

  /// - Parameter prefix: of the tensors' names, such as "model.layers.0.mlp.".
  init(
    _ loader: WeightLoader<Ops>, prefix: String, hiddenSize: Int, width: Int, hasBias: Bool = false,
    arrays: FeedForwardArrays<Ops>
  ) throws {
    gateUp = try loader.matrix(
      (prefix + "gate_proj.weight", width), (prefix + "up_proj.weight", width), inputs: hiddenSize)
    down = try loader.matrix((prefix + "down_proj.weight", hiddenSize), inputs: width)
    gateUpBias =
      hasBias ? try loader.vector((prefix + "gate_proj.bias", width), (prefix + "up_proj.bias", width)) : nil
    downBias = hasBias ? try loader.vector((prefix + "down_proj.bias", hiddenSize)) : nil
    gated = arrays[width]
  }

  /// output += the network's result for norm(x), or for x itself.
  func callAsFunction(_ x: Ops.Activations, norm: RMSNorm<Ops.Vector>?, operators: Ops, into output: Ops.Activations) {
    operators.gatedLinear(x, norm: norm, gateUp, bias: gateUpBias, into: gated)
    operators.linear(gated, down, bias: downBias, accumulate: true, into: output)
  }
}

/// The feed-forward part of a layer: one network for all tokens, or experts of which each token uses a few.
enum FeedForward<Ops: ExpertOperators> {
  case dense(GatedFeedForward<Ops>)
  case experts(MixtureOfExperts<Ops>)

  init(
    _ loader: WeightLoader<Ops>, configuration: ModelConfiguration, layer: Int, arrays: FeedForwardArrays<Ops>
  ) throws {
    let prefix = "model.layers.\(layer).mlp."
    if let experts = configuration.moe, experts.isSparse(layer: layer) {
      self = .experts(
        try MixtureOfExperts(loader, prefix: prefix, hiddenSize: configuration.hiddenSize, experts, arrays: arrays))
    } else {
      self = .dense(
        try GatedFeedForward(
          loader, prefix: prefix, hiddenSize: configuration.hiddenSize, width: configuration.intermediateSize,
          hasBias: configuration.mlpBias, arrays: arrays))
    }
  }

  /// hidden += the network's result for norm(hidden).
  /// - Parameter normed: an array of its width.
  func callAsFunction(
    _ hidden: Ops.Activations, norm: RMSNorm<Ops.Vector>, operators: Ops, normed: Ops.Activations
  ) {
    switch self {
    case .dense(let network): network(hidden, norm: norm, operators: operators, into: hidden)
    case .experts(let experts):
      operators.rmsNorm(hidden, weight: norm.weight, epsilon: norm.epsilon, into: normed)
      experts(normed, operators: operators, into: hidden)
    }
  }
}

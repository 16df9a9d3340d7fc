import Checkpoints
import Operators

/// A router, its experts, and the shared experts that every token uses (arXiv 2401.06066, section 3).
struct MixtureOfExperts<Ops: ExpertOperators> {
  private let routing: ExpertRouting
  private let router: Ops.Matrix
  private let correction: Ops.Vector?
  private let gateUp: [Ops.Matrix]
  private let down: [Ops.Matrix]
  private let shared: GatedFeedForward<Ops>?

  init(
    _ loader: WeightLoader<Ops>, prefix: String, hiddenSize: Int, _ configuration: MoEConfiguration,
    arrays: FeedForwardArrays<Ops>
  ) throws {
    routing = try ExpertRouting(configuration)
    let (count, width) = (configuration.expertCount, configuration.intermediateSize)
    router = try loader.table((prefix + "gate.weight", count), inputs: hiddenSize)
    correction =
      configuration.selection == .noAuxiliaryLoss
      ? try loader.vector((prefix + "gate.e_score_correction_bias", count)) : nil
    var gateUp: [Ops.Matrix] = []
    var down: [Ops.Matrix] = []
    for expert in 0..<count {
      let name = "\(prefix)experts.\(expert)."
      gateUp.append(
        try loader.matrix((name + "gate_proj.weight", width), (name + "up_proj.weight", width), inputs: hiddenSize))
      down.append(try loader.matrix((name + "down_proj.weight", hiddenSize), inputs: width))
    }
    self.gateUp = gateUp
    self.down = down
    shared =
      configuration.sharedExpertCount > 0
      ? try GatedFeedForward(
        loader, prefix: prefix + "shared_experts.", hiddenSize: hiddenSize,
        width: width * configuration.sharedExpertCount, arrays: arrays) : nil
  }

  /// output += the weighted sum of the chosen experts' results, then that of the shared experts.
  func callAsFunction(_ x: Ops.Activations, operators: Ops, into output: Ops.Activations) {
    operators.experts(
      x, router: router, correction: correction, routing: routing, gateUp: gateUp, down: down, into: output)
    shared?(x, norm: nil, operators: operators, into: output)
  }
}

extension ExpertRouting {
  init(_ configuration: MoEConfiguration) throws(ExpertRoutingError) {
    let grouped = configuration.selection != .greedy
    try self.init(
      expertCount: configuration.expertCount, expertsPerToken: configuration.expertsPerToken,
      groupCount: grouped ? configuration.groupCount : 1, groupsPerToken: grouped ? configuration.topGroupCount : 1,
      groupScore: configuration.selection == .noAuxiliaryLoss ? .bestTwo : .best,
      scoring: configuration.scoring == .sigmoid ? .sigmoid : .softmax,
      normalizesWeights: configuration.normalizesTopK, scalingFactor: configuration.routedScalingFactor)
  }
}

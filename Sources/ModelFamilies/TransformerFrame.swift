import Checkpoints
import Operators
import PagedCache

/// What a step begins and ends with in every family: the tokens' embeddings, the last norm and the output head.
struct TransformerFrame<Ops: ModelOperators> {
  private let operators: Ops
  private let rotary: RotaryEmbedding
  private let epsilon: Float
  let embedding: Ops.Matrix
  let head: Ops.Matrix
  private let finalNorm: Ops.Vector
  /// [T, hidden size] what the layers add to.
  let hidden: Ops.Activations
  /// [T, hidden size]
  let normed: Ops.Activations

  /// - Parameter rotaryDimension: values of a head that rotate.
  /// - Throws: `CheckpointError` for a missing tensor or a shape that the configuration contradicts.
  init(_ loader: WeightLoader<Ops>, rotaryDimension: Int) throws {
    let configuration = loader.checkpoint.configuration
    let (hiddenSize, vocabulary) = (configuration.hiddenSize, configuration.vocabularySize)
    embedding = try loader.table(("model.embed_tokens.weight", vocabulary), inputs: hiddenSize)
    finalNorm = try loader.vector(("model.norm.weight", hiddenSize))
    let headName = configuration.tieWordEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight"
    head = try loader.matrix((headName, vocabulary), inputs: hiddenSize)
    rotary = RotaryEmbedding(configuration.rope, dimension: rotaryDimension)
    epsilon = configuration.rmsNormEpsilon
    hidden = loader.operators.makeActivations(width: hiddenSize)
    normed = loader.operators.makeActivations(width: hiddenSize)
    operators = loader.operators
  }

  func begin(_ batch: StepBatch, pool: PagePool) { operators.beginStep(batch, pool: pool, rotary: rotary) }

  /// One step of the main model.
  /// - Parameter layers: adds all layers to `hidden`.
  func run(
    _ batch: StepBatch, pool: PagePool, logits: UnsafeMutableBufferPointer<Float>, layers: () -> Void
  ) {
    begin(batch, pool: pool)
    operators.embed(embedding, into: hidden)
    layers()
    operators.logits(hidden, norm: finalNorm, epsilon: epsilon, head: head, into: logits)
  }

  /// Copies the hidden states out, after the last norm.
  func read(into states: UnsafeMutableBufferPointer<Float>) {
    operators.rmsNorm(hidden, weight: finalNorm, epsilon: epsilon, into: normed)
    operators.read(normed, into: states)
  }
}

extension RotaryEmbedding {
  /// The embedding that config.json describes, for heads of `dimension` rotary values.
  init(_ rope: RopeConfiguration, dimension: Int) {
    self.init(
      inverseFrequencies: rope.inverseFrequencies(dimension: dimension), magnitude: Float(rope.attentionFactor),
      interleaved: rope.isInterleaved)
  }
}
